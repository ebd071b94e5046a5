"""Few-step distillation by shortcuts: one large step must equal two small ones.

A clip is given a number of steps n, and every target a step of the n-step grid. The model itself,
without gradient, takes the two steps of the 2n-step grid that lie inside; where they end is what
the one step must reach. A share of the clips goes on with plain flow matching at the finest grid,
which is the ground that the larger steps stand on. The second time embedding says which n is
meant (num_steps / 2, reference section 3).

Legend: B clips, K targets of a clip; latents are (B, K, C, W, h, w).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from magi_world.model.dit import DiT
from magi_world.training.dynamics import Batch, DynamicsConfig, draw_batch, grid_time, mix
from magi_world.training.forward import velocity
from magi_world.training.latents import LatentDataset
from magi_world.training.loop import LoopConfig, train
from magi_world.training.phrases import PhraseTable


@dataclass(frozen=True)
class DistillConfig:
    """num_steps: grids that are taught; finest: steps of the flow-matching grid; base: share of
    the clips that go on with flow matching."""

    loop: LoopConfig
    num_steps: tuple[int, ...] = (4, 8)
    finest: int = 16
    base: float = 0.5

    def __post_init__(self) -> None:
        if not self.num_steps or any(2 * n > self.finest for n in self.num_steps):
            raise ValueError(
                f"DistillConfig.num_steps is {self.num_steps}; each must be at most half of "
                f"finest ({self.finest})"
            )
        if not 0 <= self.base <= 1:
            raise ValueError(f"DistillConfig.base is {self.base}; it must be in [0, 1]")


def wide(t: Tensor) -> Tensor:
    """(B, K) -> broadcast over latents."""
    return t[..., None, None, None, None]


def step_times(steps: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Start, middle and end of a step of the ``steps``-step grid (B, K), chosen by u in [0, 1)."""
    index = (u * steps).floor()
    return tuple(grid_time((index + part) / steps) for part in (0.0, 0.5, 1.0))  # type: ignore


def train_distill(
    config: DistillConfig,
    dynamics: DynamicsConfig,
    model: DiT,
    data: LatentDataset,
    phrases: PhraseTable,
    folder: Path,
    device: torch.device,
) -> DiT:
    """Go on from ``model``; resumes from ``folder/distill.ckpt``; averaged weights are returned.

    Raises:
        Stopped: asked to stop; run again to go on.
    """
    drawn = replace(dynamics, loop=config.loop)
    model.to(device)

    def run(b: Batch, x: Tensor, t: Tensor, interval: Tensor) -> Tensor:
        return velocity(model, b.clean, x, t, b.after, b.captions, interval, dynamics.history)

    def objective(
        b: Batch, x: Tensor, t: Tensor, interval: Tensor, goal: Tensor, weight: Tensor
    ) -> Tensor:
        error = (run(b, x, t, interval) - goal).square().mean(dim=(2, 3, 4, 5))
        return (error * weight).mean()

    compiled = torch.compile(objective) if dynamics.compile else objective

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        b = draw_batch(drawn, data, phrases, generator, device)
        count = b.t.shape[0]
        u = torch.rand(b.t.shape, generator=generator).to(device)
        pick = torch.randint(len(config.num_steps), (count, 1), generator=generator)
        steps = torch.tensor(config.num_steps)[pick].float().to(device).expand_as(b.t)
        plain = (torch.rand(count, 1, generator=generator) < config.base).to(device)
        t0, tm, t1 = step_times(steps, u)
        x = mix(b.target, b.noise, t0)
        with (
            torch.no_grad(),
            torch.autocast(device.type, torch.bfloat16, enabled=dynamics.autocast),
        ):
            first = run(b, x, t0, steps)  # num_steps / 2 of the grid twice as fine is ``steps``
            half = x + first * wide(tm - t0)
            second = run(b, half, tm, steps)
        end = half + second * wide(t1 - tm)
        goal = torch.where(wide(plain), b.target - b.noise, (end - x) / wide(t1 - t0))
        t = torch.where(plain, b.t, t0)
        x = torch.where(wide(plain), mix(b.target, b.noise, b.t), x)
        finest = torch.full_like(steps, config.finest)
        interval = torch.where(plain, finest, steps) / 2
        weight = torch.ones_like(t)
        with torch.autocast(device.type, torch.bfloat16, enabled=dynamics.autocast):
            return compiled(b, x, t, interval, goal, weight), {}

    train("distill", model, loss, config.loop, folder, "videodit_blocks")
    return model
