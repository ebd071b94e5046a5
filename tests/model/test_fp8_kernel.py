"""The fused quantisation, run by Triton's interpreter in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

SCRIPT = """
import torch
from magi_world.model.fp8_kernel import quantise
from magi_world.model.layers import E4M3_MAX, Fp8Linear

torch.manual_seed(0)
for per_channel in (False, True):
    layer = Fp8Linear(64, 32, per_channel)
    layer.input_scale.fill_(0.037)
    divisor = layer.input_scale[:1]
    if per_channel:
        layer.smooth_scale.copy_(torch.rand(64) + 0.01)
        divisor = layer.smooth_scale
    for dtype in (torch.bfloat16, torch.float32):
        x = (torch.randn(3, 37, 64) * 8).to(dtype)
        x[0, 0, :8] = torch.tensor([0, 1e9, -1e9, 1e-9, 3e-4, -3e-4, 447.9 * 0.037, 20])
        expected, got = layer.quantise(x).float(), quantise(x, divisor, E4M3_MAX).float()
        wrong = int((expected != got).sum())
        assert got.abs().max() == E4M3_MAX and wrong == 0, (per_channel, dtype, wrong)
print("equal")
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_the_kernel_rounds_as_the_formula_does() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.strip() == "equal", done.stderr[-2000:]
