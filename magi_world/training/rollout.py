"""Dreams that go on from held-out episodes, under the commands that were really held.

Legend: B worlds dreamed in one batch, T frames a chunk, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from magi_world.training.dataset import ChunkDataset
from magi_world.world import World

HISTORY = 4  # real chunks in front of every dream


def situations(data: ChunkDataset, count: int, length: int, seed: int) -> Tensor:
    """First rows of ``count`` clips of ``HISTORY + length`` chunks that end no episode."""
    rows = data.starts(HISTORY + length + 1)
    if len(rows) < count:
        raise ValueError(
            f"the held-out recording has {len(rows)} clips of {HISTORY + length} chunks; "
            f"{count} are needed"
        )
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return rows[order[:count]]


def begin(world: World, data: ChunkDataset, rows: Tensor, seed: int) -> None:
    """Put every world behind HISTORY real chunks."""
    index = rows[:, None] + torch.arange(HISTORY)
    world.reset(seed, video=data.pixels(index.flatten()).unflatten(0, index.shape).flatten(1, 2))


def rollouts(
    world: World, data: ChunkDataset, commands: Sequence[str], rows: Tensor, length: int, seed: int
) -> Tensor:
    """Dream (n, length, T, H, W, 3) under the commands that were really held, behind ``rows``."""
    out = []
    for part in rows.split(world.num_worlds):
        begin(world, data, part, seed)
        chunks = []
        for i in range(length):
            held = data.command[part + HISTORY + i].tolist()
            chunks.append(world.step([commands[c] for c in held]).decoded.cpu())
        out.append(torch.stack(chunks, 1))
    return torch.cat(out)
