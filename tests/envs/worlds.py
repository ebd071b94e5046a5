"""Worlds and rewards for the tests of the environments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor, nn

from magi_world.envs import MagiWorldVectorEnv
from magi_world.model.heads import Heads, HeadsConfig
from magi_world.world.chunk import Chunk
from magi_world.world.world import World
from tests.tiny import tiny_parts

FAST = 100_000.0  # frames a second; windows are paced by it
# What three worlds are told, step by step.
PLAN = [
    ("turn left", "turn right", "walk forward"),
    ("walk forward", "a cat", "walk forward"),
    ("turn left", "turn left", "stand still"),
    ("turn right", "walk forward", "a dog"),
    ("turn left", "turn right", "turn left"),
]


def heads(bias: float = 0.0) -> Heads:
    """Random heads; the end is the likelier the larger ``bias``."""
    torch.manual_seed(3)
    made = Heads(HeadsConfig(8, 2, (4, 6), ("hit", "died"), (1.0, -2.0), end="died", width=8))
    made.fc2.bias.data[1] = bias
    return made.requires_grad_(False)


class Ends(nn.Module):
    """Heads whose prediction is any function of the latents (B, C, t, h, l)."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.end = end

    def forward(self, latents: Tensor) -> dict[str, Any]:
        mean = latents.mean((1, 2, 3, 4))
        return {"reward": mean, "end": self.end(latents), "events": {"mean": mean}}


def sometimes(latents: Tensor) -> Tensor:
    """An end in about every third chunk, as the latents have it."""
    return ((latents.sum((1, 2, 3, 4)) * 7).floor() % 3 == 0).float()


def fast_world(
    num_worlds: int = 1, heads: nn.Module | None = None, window_size: int = 1, **options: int
) -> World:
    """A tiny world whose windows do not wait."""
    parts = tiny_parts(window_size=window_size, **options)
    spec = replace(parts.spec, fps=FAST)
    return World(replace(parts, spec=spec, heads=heads), num_worlds)


def together(mode: Any = AutoresetMode.SAME_STEP, **options: Any) -> MagiWorldVectorEnv:
    """Three worlds in one batch, which end now and then."""
    world = fast_world(heads=Ends(sometimes))
    return MagiWorldVectorEnv(3, world, autoreset_mode=mode, **options)


def brightness(chunk: Chunk, info: dict[str, Any]) -> tuple[float, bool]:
    """A reward function: mean brightness, an end after chunk 3."""
    return float(chunk.frames.mean()) / 255, info["chunk"] >= 3
