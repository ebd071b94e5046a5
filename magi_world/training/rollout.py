"""Dreams that go on from held-out episodes, under the commands that were really held.

Legend: B worlds dreamed in one batch, T frames a chunk, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from magi_world.training.data import ChunkDataset
from magi_world.world.spec import WorldSpec
from magi_world.world.world import World

HISTORY = 4  # real chunks in front of every dream, where the episodes are long enough
FEWEST = 8  # situations with which a shorter history is not yet needed


@dataclass(frozen=True)
class EvaluateConfig:
    """How much is measured.

    clips: held-out situations; seconds: length of the long dream; worlds: dreamed in one batch;
    lengths: chunks after which a dream is held against the real episode;
    choices: held-out clips a command, at most, of which the true future is to be told; held: chunks
    of that future, for commands of which there are so many clips (one for others); figures:
    'module:function' of further figures of this one world, called with (world, held-out
    recording, this configuration), '' = none; agents: 'module:function' of figures of agents that
    are judged in this simulator (`magi_world.agents.judge.Scores`), '' = none.
    """

    clips: int = 32
    seconds: float = 60.0
    worlds: int = 8
    lengths: tuple[int, ...] = (1, 4, 16, 64)
    choices: int = 12
    held: int = 1
    figures: str = ""
    agents: str = ""
    seed: int = 0


def chunks_in(seconds: float, spec: WorldSpec) -> int:
    """Chunks that last about so long, at least one."""
    return max(1, round(seconds / spec.chunk_seconds))


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


def save_strip(rows: Sequence[Tensor], path: Path, scale: int = 2, gap: int = 2) -> Path:
    """Write uint8 rows (F, H, W, 3) under each other, ``scale`` times enlarged.

    Raises:
        ValueError: rows of different shapes, or none.
    """
    if len({tuple(r.shape) for r in rows}) != 1:
        raise ValueError(f"a strip needs rows of one shape, not {[tuple(r.shape) for r in rows]}")
    height = rows[0].shape[1]
    lines: list[Tensor] = []
    for row in rows:
        line = row.permute(1, 0, 2, 3).reshape(height, -1, 3)
        lines += [line, torch.full((gap, line.shape[1], 3), 255, dtype=torch.uint8)]
    image = Image.fromarray(np.ascontiguousarray(torch.cat(lines[:-1]).numpy()))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(
        path, optimize=True
    )
    return path


def reconstruction_rows(real: Tensor, made: Tensor) -> list[Tensor]:
    """Real and reconstructed chunks (n, T, H, W, 3) in alternating rows."""
    return [row for pair in zip(real, made, strict=True) for row in pair]


def sampled(video: Tensor, count: int) -> Tensor:
    """``count`` frames (count, H, W, 3) spread over (F, H, W, 3)."""
    return video[torch.linspace(0, len(video) - 1, count).round().long()]
