"""Whether bfloat16 pays on this machine: measured, because a CPU without the instructions emulates
it, dozens of times slower than float32."""

from __future__ import annotations

import functools
import time

import torch


@functools.cache
def bfloat16_pays(device: str) -> bool:
    """Whether products in bfloat16 are at least as fast as in float32 on a device type."""
    if device != "cpu":
        return True
    return _seconds(torch.bfloat16) <= _seconds(torch.float32)


def _seconds(dtype: torch.dtype) -> float:
    a, b = torch.ones(256, 256, dtype=dtype), torch.ones(256, 256, dtype=dtype)
    a @ b
    best = float("inf")
    for _ in range(3):
        begun = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - begun)
    return best


def mixed(wanted: bool | None, device: torch.device) -> bool:
    """Whether to compute in bfloat16: as wanted, or, where that is None, where it pays."""
    return bfloat16_pays(device.type) if wanted is None else wanted
