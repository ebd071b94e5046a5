"""Few-step distillation: guidance goes into the weights, and one large step must equal two small.

A clip is given a number of steps n, and every target a step of the n-step grid. Half of the clips
learn the finest grid: the data's own velocity, pushed away from what the frozen teacher would do
without a caption (classifier-free guidance, reference section 4), so that one pass is enough
later. The other half learn shortcuts: the model itself, without gradient, takes the two steps of
the 2n-step grid that lie inside, and where they end is what the one step must reach. The second
time embedding says which n is meant (num_steps / 2, reference section 3). Histories are dreamed
as often as in the training before (`own_history`), or what it taught about drift would be unlearnt.

Legend: B clips, K targets of a clip; latents are (B, K, C, W, h, w).
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from magi_world.model.dit import DiT
from magi_world.sampling.schedule import time_at
from magi_world.training.data import LatentDataset
from magi_world.training.dynamics import (
    Batch,
    DynamicsConfig,
    channel_weights,
    draw_batch,
    dreamed,
    goal,
    mix,
    rounds_of,
)
from magi_world.training.forward import velocity
from magi_world.training.loop import LoopConfig, mixed, train
from magi_world.training.phrases import PhraseTable


@dataclass(frozen=True)
class DistillConfig:
    """num_steps: grids that are taught; finest: steps of the grid below them; guidance: weight of
    the caption, 1 = none beyond the model's own."""

    loop: LoopConfig
    num_steps: tuple[int, ...] = (4, 8)
    finest: int = 16
    guidance: float = 1.75

    def __post_init__(self) -> None:
        if not self.num_steps or any(2 * n > self.finest for n in self.num_steps):
            raise ValueError(
                f"DistillConfig.num_steps is {self.num_steps}; each must be at most half of "
                f"finest ({self.finest})"
            )
        if self.loop.batch % 2:
            raise ValueError(
                f"DistillConfig.loop.batch is {self.loop.batch}; it must be even: half of the "
                "clips learn the finest grid, half the shortcuts"
            )
        if self.guidance < 1:
            raise ValueError(f"DistillConfig.guidance is {self.guidance}; it must be at least 1")


def wide(t: Tensor) -> Tensor:
    """(B, K) -> broadcast over latents."""
    return t[..., None, None, None, None]


def step_times(steps: Tensor, u: Tensor, shift: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    """Start, middle and end of a step of the ``steps``-step grid (B, K), chosen by u in [0, 1)."""
    index = (u * steps).floor()
    places = [(index + part) / steps for part in (0.0, 0.5, 1.0)]
    return tuple(time_at(place, shift) for place in places)  # type: ignore


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
    teacher = deepcopy(model).eval().requires_grad_(False)
    half = config.loop.batch // 2
    autocast = partial(
        torch.autocast, device.type, torch.bfloat16, enabled=mixed(dynamics.autocast, device)
    )

    def run(net: DiT, b: Batch, x: Tensor, t: Tensor, interval: Tensor) -> Tensor:
        return velocity(net, b.clean, x, t, b.after, b.captions, interval, dynamics.history)

    def objective(b: Batch, x: Tensor, t: Tensor, interval: Tensor, aim: Tensor) -> Tensor:
        error = (run(model, b, x, t, interval) - aim).square().mean(dim=(0, 1, 3, 4, 5))
        return (error * weight).mean()

    weight = channel_weights(dynamics, data).to(device)
    compiled = torch.compile(objective) if dynamics.compile else objective
    ahead = torch.compile(run) if dynamics.compile else run

    @torch.no_grad()
    def guided(b: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Points, times, intervals and goals on the finest grid."""
        x = mix(b.target, b.noise, b.t)
        interval = torch.full_like(b.t, config.finest / 2)
        none = replace(b, captions=replace(b.captions, dropped=torch.ones_like(b.captions.dropped)))
        with autocast():
            told = ahead(teacher, b, x, b.t, interval)
            push = (config.guidance - 1) * (told - ahead(teacher, none, x, b.t, interval))
        return x, b.t, interval, goal(dynamics.dit, b, x) + push

    @torch.no_grad()
    def shortcut(b: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same on the coarser grids."""
        u = torch.rand(b.t.shape, generator=generator).to(device)
        pick = torch.randint(len(config.num_steps), (len(b.t), 1), generator=generator)
        steps = torch.tensor(config.num_steps)[pick].float().to(device).expand_as(b.t)
        t0, tm, t1 = step_times(steps, u, dynamics.shift)
        x = mix(b.target, b.noise, t0)
        with autocast():
            first = ahead(model, b, x, t0, steps)  # num_steps / 2 of the grid twice as fine
            middle = x + first * wide(tm - t0)
            second = ahead(model, b, middle, tm, steps)
        end = middle + second * wide(t1 - tm)
        return x, t0, steps / 2, (end - x) / wide(t1 - t0)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        b = draw_batch(drawn, data, phrases, generator, device)
        rounds = rounds_of(dynamics.own_history, generator)
        with autocast():
            b = dreamed(model, drawn, b, generator, rounds)
        parts = zip(
            guided(b.rows(slice(half))), shortcut(b.rows(slice(half, None)), generator), strict=True
        )
        x, t, interval, aim = (torch.cat(pair) for pair in parts)
        with autocast():
            return compiled(b, x, t, interval, aim), {}

    train("distill", model, loss, config.loop, folder, "videodit_blocks")
    return model
