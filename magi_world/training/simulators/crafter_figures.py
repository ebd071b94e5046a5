"""Figures of the world `crafter`: are dreamed tiles real, do walks shift the map, does it count?

Pictures are cut into tiles, and each is taken for the nearest of the tiles that the held-out
recording shows. Legend: n pictures, R rows and K columns of tiles, L different tiles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from magi_world.training.data import ChunkDataset
from magi_world.training.rollout import EvaluateConfig, history_of, rollouts
from magi_world.training.simulators.crafter import COLUMNS, ROWS, TILE, WAYS
from magi_world.world import World

NEAR = 10.0  # mean grey levels by which a tile may differ from a real one
MOST = 6000  # pictures whose tiles are known
WOOD = (7, 5)  # row and column of the wood in the inventory
LENGTHS = (1, 8, 32)  # chunks, of one step each, after which tiles are compared
WALKS = (1, 4)  # steps in one direction
ACHIEVEMENTS = (
    "collect_coal", "collect_diamond", "collect_drink", "collect_iron", "collect_sapling",
    "collect_stone", "collect_wood", "defeat_skeleton", "defeat_zombie", "eat_cow", "eat_plant",
    "make_iron_pickaxe", "make_iron_sword", "make_stone_pickaxe", "make_stone_sword",
    "make_wood_pickaxe", "make_wood_sword", "place_furnace", "place_plant", "place_stone",
    "place_table", "wake_up",
)  # fmt: skip


def tiles(frames: Tensor) -> Tensor:
    """uint8 (n, H, W, 3) -> (n, R, K, TILE * TILE * 3) uint8."""
    cut = frames.unfold(1, TILE, TILE).unfold(2, TILE, TILE)  # n R K 3 y x
    return cut.flatten(3)


class Tiles:
    """The different tiles of a recording."""

    def __init__(self, data: ChunkDataset) -> None:
        rows = torch.linspace(0, len(data) - 1, min(MOST, len(data))).long()
        found = [tiles(data.pixels(part)[:, -1]).flatten(0, 2) for part in rows.split(512)]
        self.known = torch.cat([f.unique(dim=0) for f in found]).unique(dim=0).float()  # (L, P)

    def nearest(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (n, H, W, 3) -> index of the nearest tile and its mean error, (n, R, K) each."""
        cut = tiles(frames)
        parts = cut.flatten(0, 2).float().split(1024)
        found = [torch.cdist(part, self.known, p=1.0).min(1) for part in parts]
        error = torch.cat([f.values for f in found]) / cut.shape[3]
        return torch.cat([f.indices for f in found]).view(cut.shape[:3]), error.view(cut.shape[:3])


def shift_of(before: Tensor, after: Tensor, way: tuple[int, int], most: int = 4) -> Tensor:
    """How many tiles the map of pictures (n, H, W, 3) moved against a walk ``way``, 0 to ``most``.

    The middle tile, which is the player's, does not count.
    """
    a, b = (f[:, : ROWS * TILE].float() for f in (before, after))
    seen = torch.ones(a.shape[1:3], dtype=torch.bool)
    middle = [slice(n // 2 * TILE, (n // 2 + 1) * TILE) for n in (ROWS, COLUMNS)]
    seen[middle[0], middle[1]] = False
    costs = []
    for n in range(most + 1):
        dx, dy = way[0] * n * TILE, way[1] * n * TILE
        # What was at (x + dx) is now at x.
        moved, was = torch.roll(a, (-dy, -dx), (1, 2)), torch.roll(seen, (-dy, -dx), (0, 1))
        inside = torch.zeros_like(seen)
        height, width = seen.shape
        inside[max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)] = True
        mask = (inside & was & seen)[None, :, :, None]
        costs.append(((moved - b).abs() * mask).sum((1, 2, 3)) / mask.sum() / 3)
    return torch.stack(costs, 1).argmin(1)


def measure(world: World, data: ChunkDataset, config: EvaluateConfig) -> dict[str, Any]:
    """Everything of this module, for ``evaluate.figures``.

    Returns:
        "after_1", "after_8" and "after_32" (chunks dreamed under the commands really held):
        "real_tiles", the share of tiles that are a tile of the game; "right_tiles", that are what
        really came, beside those of somebody who says that nothing moves. "walks" and "walks_of_4":
        the share of walks, of one step and of four, that shift the map by the right number of
        tiles. "wood": the share of dreams in which the inventory says what it really said after
        wood was collected.
    """
    known, before = Tiles(data), history_of(data)
    names = list(world.spec.command_names)
    draw = torch.Generator().manual_seed(config.seed)

    def some(rows: Tensor, count: int) -> Tensor:
        return rows[torch.randperm(len(rows), generator=draw)[:count]]

    def last(rows: Tensor, ahead: int) -> Tensor:
        """What really was seen after ``ahead`` chunks behind the history."""
        return data.pixels(rows + before + ahead - 1)[:, -1]

    def dreamed(rows: Tensor, length: int) -> Tensor:
        """What is seen instead, under the commands that were really held."""
        return rollouts(world, data, names, rows, length, config.seed)[:, -1, -1]

    def under(name: str, length: int = 1) -> Tensor:
        """Where a command is held for ``length`` chunks behind the history."""
        starts = data.starts(before + length + 1)
        held = data.command[starts[:, None] + before + torch.arange(length)]
        return starts[(held == names.index(name)).all(1)]

    out: dict[str, Any] = {"different_tiles": len(known.known)}
    for length in LENGTHS:
        rows = some(data.starts(before + length + 1), 4 * config.clips)
        if len(rows):
            index, error = known.nearest(dreamed(rows, length))
            true, _ = known.nearest(last(rows, length))
            stood, _ = known.nearest(last(rows, 0))
            out[f"after_{length}"] = {
                "real_tiles": _share(error < NEAR),
                "right_tiles": _share(index == true),
                "right_tiles_of_a_copy": _share(stood == true),
            }
    for length in WALKS:
        walks: dict[str, float] = {}
        for word, way in WAYS.items():
            rows = some(under(f"go {word}", length), 2 * config.clips)
            if len(rows):
                stood = last(rows, 0)
                real = shift_of(stood, last(rows, length), way, length)
                made = shift_of(stood, dreamed(rows, length), way, length)
                walks[f"go {word}"] = _share(made == real)
        name = "walks" if length == 1 else f"walks_of_{length}"
        out[name] = {**walks, "all": sum(walks.values()) / max(1, len(walks))}
    acts = some(under("act"), 40 * config.clips)
    grown = [(wood(last(r, 0)) != wood(last(r, 1))).any(1) for r in acts.split(256)]
    rows = acts[torch.cat(grown)][: 2 * config.clips] if grown else acts
    if len(rows):
        index, _ = known.nearest(dreamed(rows, 1))
        true, _ = known.nearest(last(rows, 1))
        out["wood"] = _share(index[:, WOOD[0], WOOD[1]] == true[:, WOOD[0], WOOD[1]])
    return out


def wood(frames: Tensor) -> Tensor:
    """The tile of pictures (n, H, W, 3) that says how much wood is there."""
    return tiles(frames)[:, WOOD[0], WOOD[1]]


def _share(right: Tensor) -> float:
    return float(right.float().mean())


def scores(episodes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """How well agents play, for ``evaluate.agents``.

    Args:
        episodes: of each, how often every event happened.

    Returns:
        "crafter score": Hafner's (arXiv 2109.06780), exp(mean(ln(1 + s))) - 1 over the 22
        achievements, s being the percentage of episodes in which one was reached; in percent.
        "achievements": different ones an episode, on average.
    """
    reached = [[episode[name] >= 0.5 for name in ACHIEVEMENTS] for episode in episodes]
    percent = [100 * sum(column) / len(reached) for column in zip(*reached, strict=True)]
    mean = sum(math.log1p(p) for p in percent) / len(percent)
    return {"crafter score": math.expm1(mean), "achievements": sum(percent) / 100}
