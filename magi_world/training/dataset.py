"""Recorded chunks as one indexable set, memory-mapped, with the mirrored twin of every episode.

Legend: N chunks, T frames a chunk, H W pixels, C t h w latents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor


def mirror_command(command: str, words: Mapping[str, str]) -> str:
    """The command with the words that mean sides swapped, e.g. ``{"left": "right"}``."""
    swap = {**words, **{b: a for a, b in words.items()}}
    return " ".join(swap.get(word, word) for word in command.split(" "))


def mirror_table(commands: Sequence[str], words: Mapping[str, str]) -> list[int]:
    """For every command the row of its mirror image.

    Raises:
        ValueError: a command's mirror image is not in the table.
    """
    images = [mirror_command(c, words) for c in commands]
    if missing := {c: m for c, m in zip(commands, images, strict=True) if m not in commands}:
        raise ValueError(
            f"record.mirror is {dict(words)}, but the mirror images {missing} are not among the "
            f"commands {list(commands)}; add them, or leave mirror out"
        )
    return [list(commands).index(m) for m in images]


class ChunkDataset:
    """Chunks of the shards in a folder.

    Args:
        mirror: words that change sides in a mirrored picture (`RecordConfig.mirror`); empty: the
            recording is never mirrored.

    Attributes:
        command, end, episode, first: int64 (N,); episode numbers are unique over the set, ``first``
            is the row at which the chunk's episode starts.
        reward: float32 (N,); events: float32 (N, E).

    Raises:
        ValueError: the folder has no shard, or a shard lacks a tensor.
    """

    def __init__(self, paths: Sequence[Path], mirror: Mapping[str, str] | None = None) -> None:
        if not paths:
            raise ValueError("ChunkDataset got no shards; record some first")
        self.paths, self.mirror = list(paths), dict(mirror or {})
        columns: dict[str, list[Tensor]] = {}
        self.frames: list[Tensor] = []
        for path in self.paths:
            with safe_open(path, framework="pt") as shard:
                names = {"frames", "command", "reward", "events", "end", "episode"}
                if lacking := names - set(shard.keys()):
                    raise ValueError(f"shard {path} lacks {sorted(lacking)}")
                self.frames.append(shard.get_tensor("frames"))
                for name in names - {"frames"}:
                    columns.setdefault(name, []).append(shard.get_tensor(name))
        sizes = torch.tensor([len(f) for f in self.frames])
        self.offsets = torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)])
        self.command = torch.cat(columns["command"]).long()
        self.reward = torch.cat(columns["reward"]).float()
        self.events = torch.cat(columns["events"]).float()
        self.end = torch.cat(columns["end"]).long()
        shard = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        local = torch.cat(columns["episode"]).long()
        new = torch.ones(len(self), dtype=torch.bool)
        new[1:] = (shard[1:] != shard[:-1]) | (local[1:] != local[:-1])
        self.episode = new.long().cumsum(0) - 1
        self.first = torch.nonzero(new).squeeze(1)[self.episode]

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def pixels(self, rows: Tensor, mirrored: Tensor | None = None) -> Tensor:
        """uint8 frames (n, T, H, W, 3) of ``rows``; those marked in ``mirrored`` are flipped."""
        out = []
        for row in rows.tolist():
            shard = int(torch.searchsorted(self.offsets, row, right=True)) - 1
            out.append(self.frames[shard][row - int(self.offsets[shard])])
        frames = torch.stack(out)
        if mirrored is not None and bool(mirrored.any()):
            frames[mirrored] = frames[mirrored].flip(3)
        return frames

    def sides(self, count: int, generator: torch.Generator) -> Tensor:
        """int64 (count,): 1 for those to be mirrored, half of them where mirroring is allowed."""
        drawn = torch.randint(2, (count,), generator=generator)
        return drawn if self.mirror else torch.zeros_like(drawn)

    def images(self, commands: Sequence[str]) -> Tensor:
        """int64: for every command the row of its mirror image, itself where nothing mirrors."""
        if not self.mirror:
            return torch.arange(len(commands))
        return torch.tensor(mirror_table(commands, self.mirror))

    def starts(self, length: int) -> Tensor:
        """Rows from which ``length`` chunks of one episode follow."""
        last = torch.arange(len(self)) + length - 1
        inside = last < len(self)
        same = torch.zeros(len(self), dtype=torch.bool)
        same[inside] = self.episode[last[inside]] == self.episode[: int(inside.sum())]
        return torch.nonzero(same).squeeze(1)


def split_shards(folder: str | Path, held_out: int) -> tuple[list[Path], list[Path]]:
    """(training shards, held-out shards): the last ``held_out`` files in order.

    Raises:
        ValueError: nothing is left to train on.
    """
    paths = sorted(Path(folder).glob("shard_*.safetensors"))
    if len(paths) <= held_out:
        raise ValueError(
            f"{folder} has {len(paths)} shards; it needs more than held_out_shards ({held_out})"
        )
    cut = len(paths) - held_out
    return paths[:cut], paths[cut:]
