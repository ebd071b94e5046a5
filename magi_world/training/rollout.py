"""Dreams that go on from held-out episodes, under the commands that were really held.

Legend: B worlds dreamed in one batch, T frames a chunk, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from magi_world.training.dataset import ChunkDataset
from magi_world.world.world import World

HISTORY = 4  # real chunks in front of every dream, where the episodes are long enough
FEWEST = 8  # situations with which a shorter history is not yet needed


def history_of(data: ChunkDataset) -> int:
    """Real chunks in front of a dream: `HISTORY`, or fewer where episodes are short.

    Raises:
        ValueError: no episode has three chunks, one to see, one to dream and one behind.
    """
    for length in range(HISTORY, 1, -1):
        if len(data.starts(length + 2)) >= FEWEST:
            return length
    if len(data.starts(3)) == 0:
        raise ValueError(
            "no held-out episode has three chunks; lower record.frames_per_chunk, or record with a "
            "policy that lives longer"
        )
    return 1


def situations(data: ChunkDataset, count: int, length: int, seed: int) -> Tensor:
    """First rows of ``count`` clips that end no episode: `history_of` chunks, then ``length``.

    Fewer where the recording has fewer.

    Raises:
        ValueError: it has none.
    """
    before = history_of(data)
    rows = data.starts(before + length + 1)
    if len(rows) == 0:
        raise ValueError(f"no held-out episode has {before + length + 1} chunks")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return rows[order[:count]]


def possible(data: ChunkDataset, lengths: Sequence[int]) -> list[int]:
    """Those of ``lengths`` that some held-out episode has room for."""
    before = history_of(data)
    return [n for n in lengths if len(data.starts(before + n + 1))]


def filled(rows: Tensor, count: int) -> Tensor:
    """``count`` rows: the last one is there more than once where there are fewer."""
    return rows[torch.arange(count).clamp_max(len(rows) - 1)]


def begin(world: World, data: ChunkDataset, rows: Tensor, seed: int) -> None:
    """Put every world behind real chunks; fewer rows than worlds repeat the last."""
    index = filled(rows, world.num_worlds)[:, None] + torch.arange(history_of(data))
    world.reset(seed, video=data.pixels(index.flatten()).unflatten(0, index.shape).flatten(1, 2))


def rollouts(
    world: World, data: ChunkDataset, commands: Sequence[str], rows: Tensor, length: int, seed: int
) -> Tensor:
    """Dream (n, length, T, H, W, 3) under the commands that were really held, behind ``rows``."""
    out = []
    before = history_of(data)
    for part in rows.split(world.num_worlds):
        begin(world, data, part, seed)
        whole, chunks = filled(part, world.num_worlds), []
        for i in range(length):
            held = data.command[whole + before + i].tolist()
            chunks.append(world.step([commands[c] for c in held]).decoded.cpu())
        out.append(torch.stack(chunks, 1)[: len(part)])
    return torch.cat(out)
