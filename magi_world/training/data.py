"""A recording on disk, as one indexable set of chunks, and its latents, computed once.

A shard is one safetensors file. Legend: N chunks of a shard, T frames a chunk, H W pixels, E
events, C t h w latents.

| tensor  | shape              | what                                                       |
|---------|--------------------|------------------------------------------------------------|
| frames  | N T H W 3, uint8   | the frame after each of the T simulator steps              |
| command | N, int16           | row of the command table held during the chunk             |
| reward  | N, float32         | the simulator's own reward, summed over the chunk          |
| events  | N E, int16         | how often each configured event happened                   |
| end     | N, int8            | 1 the episode ended in this chunk, 2 a limit cut it short  |
| episode | N, int32           | episode number within the shard                            |

An episode that ends inside a chunk has its last frame repeated to the chunk's end. The names of
commands and events, in their order, are in the file's metadata (`shard_names`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from magi_world.io.files import replacing
from magi_world.model.vae import VAE, frames_to_video
from magi_world.simulator import (
    RecordConfig,
    SimulatedChunk,
)
from magi_world.training.loop import training_attention


def write_shard(config: RecordConfig, rows: Sequence[Mapping[str, Any]], path: Path) -> int:
    """Put chunks, each as `shard_row` makes it, at ``path`` in one move. Returns their number."""
    # Stacked views keep their order in memory, which the file would take for that of the axes.
    tensors = {name: np.ascontiguousarray([row[name] for row in rows]) for name in rows[0]}
    with replacing(path) as part:
        # One entry: several are written in an order that differs from run to run.
        names = {"commands": list(config.actions), "events": list(config.events)}
        save_file(tensors, part, metadata={"names": json.dumps(names)})
    return len(rows)


def shard_row(chunk: SimulatedChunk, episode: int) -> dict[str, Any]:
    return {
        "frames": chunk.frames,
        "command": np.int16(chunk.command),
        "reward": np.float32(chunk.reward),
        "events": chunk.events,
        "end": np.int8(2 if chunk.cut else 1 if chunk.ended else 0),
        "episode": np.int32(episode),
    }


def shard_names(path: Path) -> dict[str, list[str]]:
    """The names of a shard's "commands" and "events"; an older one tells of no events."""
    with safe_open(path, framework="np") as shard:
        told = shard.metadata() or {}
    if "names" in told:
        names: dict[str, list[str]] = json.loads(told["names"])
        return names
    return {"commands": told.get("commands", "").split("|"), "events": []}


def shard_path(folder: Path, index: int) -> Path:
    """Where shard ``index`` of a recording lies."""
    return folder / f"shard_{index:04d}.safetensors"


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
        event_names: of the columns of ``events``; () in a recording older than they are.

    Raises:
        ValueError: the folder has no shard, or a shard lacks a tensor.
    """

    def __init__(self, paths: Sequence[Path], mirror: Mapping[str, str] | None = None) -> None:
        if not paths:
            raise ValueError("ChunkDataset got no shards; record some first")
        self.paths, self.mirror = list(paths), dict(mirror or {})
        columns: dict[str, list[Tensor]] = {}
        self.frames: list[Tensor] = []
        self.event_names = tuple(shard_names(self.paths[0])["events"])
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

    def before(self, rows: Tensor) -> Tensor:
        """The rows in front of ``rows``; of an episode's first chunk that row itself."""
        return torch.maximum(rows - 1, self.first[rows])

    def happened(self, event: str) -> Tensor:
        """bool (N,): the chunks in which an event happened.

        Raises:
            ValueError: the recording does not name such an event.
        """
        if event not in self.event_names:
            known = ", ".join(self.event_names) or "without names: it is older than they are"
            raise ValueError(f"there is no event {event!r}; the recording's events are {known}")
        return self.events[:, self.event_names.index(event)] > 0

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


class LatentDataset:
    """Clips of latents with their commands, each as recorded or mirrored.

    Args:
        vae: encodes; latents are scaled by its ``scale_factor``.
        data: the recording.
        commands: the command table of the recording.
    """

    def __init__(self, vae: VAE, data: ChunkDataset, commands: Sequence[str]) -> None:
        self.vae, self.data = vae.eval().requires_grad_(False), data
        self.device = next(vae.parameters()).device
        size = data.frames[0].shape
        cfg = vae.config
        self.shape = (
            cfg.latent_channels,
            size[1] // cfg.patch_length,
            size[2] // cfg.patch_size,
            size[3] // cfg.patch_size,
        )
        self._latents = torch.zeros(2, len(data), *self.shape, dtype=torch.float16)
        self._known = torch.zeros(2, len(data), dtype=torch.bool)
        mirrored = data.images(commands)
        self.command = torch.stack([data.command, mirrored[data.command]])
        count = torch.bincount(data.command, minlength=len(commands)).clamp_min(1).float()
        count = (count + count[mirrored]) / 2
        self._rarity = count.mean() / count
        self._weights: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def latents(self, side: Tensor, rows: Tensor, batch: int = 64) -> Tensor:
        """Latents (n, C, W, h, w) float32 of ``rows``, mirrored where ``side`` is 1."""
        new = torch.unique(torch.stack([side, rows], 1)[~self._known[side, rows]], dim=0)
        for part in new.split(batch) if len(new) else ():
            s, r = part.unbind(1)
            frames = self.data.pixels(r, s.bool()).to(self.device)
            with training_attention(self.device):
                z = self.vae.scale(self.vae.encode(frames_to_video(frames)))
            self._latents[s, r] = z.half().cpu()
            self._known[s, r] = True
        return self._latents[side, rows].float()

    def seen(self, side: Tensor, rows: Tensor, chunks: int) -> Tensor:
        """Latents of ``rows``, with ``chunks`` 2 those of the chunks before in front, as heads see
        them: (n, C, chunks * W, h, w). Before an episode's first chunk stands that chunk again."""
        parts = [
            self.latents(side, part)
            for part in ([self.data.before(rows)] if chunks > 1 else []) + [rows]
        ]
        return torch.cat(parts, 2)

    def windows(
        self, length: int, balance: float = 0.5, often: Mapping[str, float] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Starts of clips and their weights: clips with rare commands are drawn more often.

        A chunk weighs as much as its command is rare, to the power ``balance``: with 1 every
        command is as often the reason for a clip as any other, with more the rarest is. One in
        which an event of ``often`` happened weighs that many times as much.

        Raises:
            ValueError: the recording does not name such an event.
        """
        key = length, balance, *sorted((often or {}).items())
        if key not in self._weights:
            starts = self.data.starts(length)
            # The chunk in which an episode ends is padded with its last frame.
            starts = starts[self.data.end[starts + length - 1] == 0]
            weight = (self._rarity**balance)[self.data.command].double()
            for event, times in (often or {}).items():
                weight = torch.where(self.data.happened(event), times * weight, weight)
            total = torch.cat([torch.zeros(1).double(), weight.cumsum(0)])
            self._weights[key] = starts, total[starts + length] - total[starts]
        return self._weights[key]

    def draw(
        self,
        count: int,
        length: int,
        generator: torch.Generator,
        balance: float = 0.5,
        often: Mapping[str, float] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``count`` clips at random: their rows (count, length), and which side of the mirror they
        are from (count,)."""
        starts, weights = self.windows(length, balance, often)
        rows = starts[torch.multinomial(weights, count, True, generator=generator)]
        return rows[:, None] + torch.arange(length), self.data.sides(count, generator)

    def clips(self, rows: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """The clips of `draw`: latents (count, length, C, W, h, w) float32 and commands.

        The command of a chunk is the one that was held while it was recorded.
        """
        side = side[:, None].expand_as(rows)
        clips = self.latents(side.flatten(), rows.flatten())
        return clips.unflatten(0, rows.shape), self.command[side, rows]
