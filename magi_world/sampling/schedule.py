"""When and how much: the time grid, key ranges and guidance weights (reference section 4)."""

from __future__ import annotations

import bisect
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from magi_world.config import SamplerConfig

Place = TypeVar("Place", float, Tensor)

# At 12 steps every quarter of the grid has its three steps at these points, and a step spans
# this many sixteenths of the quarter.
_TWELVE = {"8,16,16": (0.0, 2 / 16, 3 / 16), "16,16,8": (0.0, 1 / 16, 2 / 16)}
_INTERVALS = {"8,16,16": (2, 1, 1), "16,16,8": (1, 1, 2)}
_EDGE = 1e-7


def times(num_steps: int, shortcut_mode: str, shift: float = 3.0) -> tuple[float, ...]:
    """The num_steps + 1 times from noise (0) to clean (1), each a float32 number.

    shift: above 1 steps are spent where there is most noise, below 1 where there is least (the
    released weights: 3).
    """
    if num_steps == 12:
        s = [q / 4 + base for q in range(4) for base in _TWELVE[shortcut_mode]] + [1.0]
    else:
        s = [i / num_steps for i in range(num_steps + 1)]
    return tuple(float(np.float32(time_at(place, shift))) for place in s)


def time_at(place: Place, shift: float = 3.0) -> Place:
    """The time at a place of the grid, both in [0, 1]: square, then shift (reference section 4)."""
    x = place * place
    return x / (shift - (shift - 1) * x)


def time_grid(num_steps: int, shortcut_mode: str, shift: float = 3.0) -> Tensor:
    """`times` as a float32 tensor on the CPU."""
    return torch.tensor(times(num_steps, shortcut_mode, shift), dtype=torch.float32)


def intervals(num_steps: int, shortcut_mode: str) -> list[int]:
    """Length of every step in units of the finest one."""
    if num_steps % 3 == 0:
        return list(_INTERVALS[shortcut_mode]) * (num_steps // 3)
    return [1] * num_steps


def step_embedding(config: SamplerConfig, step_in_stage: int) -> float | None:
    """Scalar of the second time embedding; None for weights that are not distilled."""
    if not config.distilled:
        return None
    if config.num_steps == 12:
        return 8 / intervals(12, config.shortcut_mode)[step_in_stage]
    return config.num_steps / 2


def step_of(config: SamplerConfig, stage: int, step_in_stage: int) -> int:
    """Step on the grid of a chunk that is in its ``stage``-th stage (0 = newest)."""
    return stage * config.steps_per_stage + step_in_stage


def key_range(config: SamplerConfig, step: int) -> int:
    """Chunks that a chunk at ``step`` sees, itself included."""
    return config.kv_range[step // (config.num_steps // len(config.kv_range))]


def guidance(config: SamplerConfig, t: float) -> tuple[float, float, float]:
    """Weights of (v_none, v_prev, v_text) for a chunk at time ``t``; they sum to one."""
    i = max(bisect.bisect_right(config.guidance_t, t + _EDGE) - 1, 0)
    a, b = config.prev_scales[i], config.text_scales[i]
    return 1 - a, a - b, b
