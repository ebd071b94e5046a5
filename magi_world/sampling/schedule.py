"""When and how much: the time grid, key ranges and guidance weights (reference section 4)."""

from __future__ import annotations

import bisect

import torch
from torch import Tensor

from magi_world.config import SamplerConfig

# At 12 steps every quarter of the grid has its three steps at these points, and a step spans
# this many sixteenths of the quarter.
_TWELVE = {"8,16,16": (0.0, 2 / 16, 3 / 16), "16,16,8": (0.0, 1 / 16, 2 / 16)}
_INTERVALS = {"8,16,16": (2, 1, 1), "16,16,8": (1, 1, 2)}
_EDGE = 1e-7


def time_grid(num_steps: int, shortcut_mode: str) -> Tensor:
    """The num_steps + 1 times from noise (0) to clean (1), float32."""
    if num_steps == 12:
        points = [q / 4 + base for q in range(4) for base in _TWELVE[shortcut_mode]]
        s = torch.tensor([*points, 1.0], dtype=torch.float64)
    else:
        s = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    x = s**2
    return (x / (3 - 2 * x)).float()


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
