"""Figures of the world `courtyard`: does "go to X" lead to X, does a full circle show all walls?

Things are told by their colour in the picture, by day. Legend: n worlds, H W pixels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from magi_world.training.data import ChunkDataset
from magi_world.training.judge import level
from magi_world.training.rollout import (
    EvaluateConfig,
    begin,
    chunks_in,
    filled,
    history_of,
    situations,
)
from magi_world.training.simulators.courtyard_map import PILLARS, WALLS
from magi_world.world.world import World

LEAST = 0.01  # share of the picture from which a thing counts as in view
GOAL = 3.5  # seconds in which a goal in view is to come nearer
CIRCLE = 5.4  # seconds of "turn left": twelve chunks of eight frames, more than a full circle
DAY = 88.0  # mean grey level above which it is day: day has 110 and more, night less than 70
LOOK = 4  # frames from one look at the walls to the next, or the last one of a shorter chunk
ORDER = ("red wall", "green wall", "yellow wall", "blue wall")  # as one turns left


def measure(world: World, data: ChunkDataset, config: EvaluateConfig) -> dict[str, Any]:
    """Everything of this module, for ``evaluate.figures``."""
    goals = {}
    for thing in [t.name for t in (*WALLS, *PILLARS)]:
        goals[thing] = reached(world, data, thing, config)
    return {
        "go_to": goals,
        "go_to_all": sum(goals.values()) / len(goals),
        "full_circle": circles(world, data, config),
    }


def masks(frames: Tensor) -> dict[str, Tensor]:
    """uint8 (n, H, W, 3) -> thing -> bool (n, H, W), by simple rules of colour."""
    r, g, b = (frames.float() / 255).unbind(-1)
    top, low = torch.maximum(torch.maximum(r, g), b), torch.minimum(torch.minimum(r, g), b)
    vivid = (top - low) > 0.45 * top
    upper = torch.zeros_like(vivid)
    upper[:, : frames.shape[1] * 2 // 3] = True  # the brown floor is no wall
    grey = ((top - low) < 0.08) & (top > 0.25) & (top < 0.7)
    return {
        "red wall": vivid & (r == top) & (g < 0.55 * r) & (b < 0.55 * r) & (r > 0.3),
        "blue wall": vivid & (b == top) & (g < 0.65 * b) & (r < 0.65 * b),
        "yellow wall": vivid & (r == top) & (g > 0.6 * r) & (b < 0.5 * r) & (r > 0.5) & upper,
        "green wall": vivid & (g == top) & (r < 0.75 * g) & (b < 0.75 * g),
        "white pillar": (low > 0.82) & ((top - low) < 0.1),
        "grey pillar": grey,
    }


def size_and_place(frames: Tensor, thing: str) -> tuple[Tensor, Tensor]:
    """Share of the picture that a thing has (n,), and how far its middle is aside, in [0, 1]."""
    mask = masks(frames)[thing].float()
    share = mask.mean((1, 2))
    x = torch.linspace(-1, 1, frames.shape[2])
    middle = (mask * x).sum((1, 2)) / mask.sum((1, 2)).clamp_min(1)
    return share, middle.abs()


def reached(world: World, data: ChunkDataset, thing: str, config: EvaluateConfig) -> float:
    """Share of starts with the thing in view after which it is larger and nearer the middle (or in
    it already, within a tenth)."""
    before = history_of(data)
    rows = data.starts(before + 1)
    share = torch.cat(
        [
            size_and_place(data.pixels(part + before - 1)[:, -1], thing)[0]
            for part in rows.split(256)
        ]
    )
    largest = 0.12 if "wall" in thing else 0.06  # there must be some way to go
    rows = rows[(share > LEAST) & (share < largest)]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(config.seed))
    rows = rows[order[: 2 * config.choices]]
    good = []
    for part in rows.split(world.num_worlds):
        begin(world, data, part, config.seed)
        last = data.pixels(filled(part, world.num_worlds) + before - 1)[:, -1]
        was, off = size_and_place(last, thing)
        for _ in range(chunks_in(GOAL, world.spec)):
            chunk = world.step(f"go to the {thing}")
        now, then = size_and_place(chunk.decoded.cpu()[:, -1], thing)
        good.append(((now > was) & ((then < off) | (then < 0.1)))[: len(part)])
    return float(torch.cat(good).float().mean()) if good else 0.0


def circles(world: World, data: ChunkDataset, config: EvaluateConfig) -> float:
    """Share of full circles to the left, by day, in which the walls come in order, each once.

    (Of the simulator's own circles it is 26 of 31: a pillar may hide a wall.)
    """
    rows, right = situations(data, 8 * config.choices, 1, config.seed + 3), []
    last = data.pixels(rows + history_of(data) - 1)
    rows = rows[level(last) > DAY][: 2 * config.choices]
    for part in rows.split(world.num_worlds):
        begin(world, data, part, config.seed)
        seen = []
        for _ in range(chunks_in(CIRCLE, world.spec)):
            frames = world.step("turn left").decoded.cpu()
            first = (frames.shape[1] - 1) % LOOK
            seen += [middle_wall(shot) for shot in frames[:, first::LOOK].unbind(1)]
        right += [in_order(row) for row in torch.stack(seen, 1)[: len(part)].tolist()]
    return sum(right) / max(1, len(right))


def middle_wall(frames: Tensor) -> Tensor:
    """Index into `ORDER` of the wall that most of the picture's middle shows (n,), -1 = none."""
    third = frames.shape[2] // 3
    found = masks(frames[:, :, third:-third])
    share = torch.stack([found[name].float().mean((1, 2)) for name in ORDER], 1)
    best, index = share.max(1)
    return torch.where(best > 0.03, index, torch.full_like(index, -1))


def in_order(walls: list[int]) -> bool:
    """Whether all four walls come, one after the other, and no other way."""
    order: list[int] = []
    for wall in walls:
        if wall >= 0 and (not order or order[-1] != wall):
            order.append(wall)
    steps = [(b - a) % 4 for a, b in pairwise(order)]
    return set(order) == {0, 1, 2, 3} and set(steps) == {1}
