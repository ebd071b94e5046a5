"""One denoising step: which passes are run, and how their velocities are combined.

Shapes as in `stream`. Base weights take three passes (own caption, no caption, alone), distilled
ones take one (reference section 4, "Guidance" and "One pass").
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from magi_world.config import SamplerConfig
from magi_world.model.attention import Backend
from magi_world.model.dit import DiT, Gates, Memo
from magi_world.sampling import schedule
from magi_world.sampling.cache import Cache
from magi_world.sampling.captions import CaptionReads, TextKeys
from magi_world.sampling.lane import Lane, frame_index, overwrite_start
from magi_world.sampling.rows import Indices, taken, upload

GATES_KEPT = 32


def extra_chunks(config: SamplerConfig) -> int:
    """Chunks of a forward beyond the window: the oldest one's solo copy."""
    return int(config.passes == 1 and config.solo_weight > 0)


@dataclass(frozen=True, eq=False)
class StepTable:
    """What a step needs of the time grid, on the device, for chunks at given places of it.

    t: (N,) times.    dt: (1, N, 1, 1, 1, 1) to the next ones.    clean_t: (1, 1).
    weights: three-pass sampler only, (1, N, 1, 1, 1, 1) each of none, prev and text.
    """

    t: Tensor
    dt: Tensor
    clean_t: Tensor
    weights: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Guide:
    """What all steps of a stream share. ``null`` is the null caption.

    indices, tables: what has been uploaded once.    known: the gates of the last few forwards.
    """

    dit: DiT
    config: SamplerConfig
    backend: Backend
    null: TextKeys
    indices: Indices
    tables: dict[tuple[int, ...], StepTable] = field(default_factory=dict)
    known: OrderedDict[Hashable, Gates] = field(default_factory=OrderedDict)

    def denoise(self, group: Group, x: Tensor, step: int) -> Tensor:
        """Euler step ``step`` of a stage for the chunks x (B, N, C, W, H, W'), oldest first."""
        config = self.config
        steps = [schedule.step_of(config, s, step) for s in group.lanes[0].flight.stages()]
        x = x.clone()
        overwrite_start(group.lanes, x)
        table = self.table(steps, x.device)
        passes = Passes(self, group, x, table, steps, step)
        v = passes.one() if config.passes == 1 else passes.three()
        return x + v * table.dt

    def table(self, steps: Sequence[int], device: torch.device) -> StepTable:
        """The numbers of chunks at ``steps`` of the grid; there are few different ones."""
        key = tuple(steps)
        if key not in self.tables:
            config = self.config
            grid = schedule.time_grid(config.num_steps, config.shortcut_mode)
            t, after = grid[list(key)], grid[[step + 1 for step in key]]
            weights: list[Tensor] = []
            if config.passes == 3:
                rows = torch.tensor([schedule.guidance(config, time) for time in self.times(key)])
                weights = list(rows.unbind(1))
            self.tables[key] = StepTable(
                upload(t, device),
                upload((after - t).view(1, -1, 1, 1, 1, 1), device),
                torch.full((1, 1), config.clean_t, device=device),
                tuple(upload(w.view(1, -1, 1, 1, 1, 1), device) for w in weights),
            )
        return self.tables[key]

    def times(self, steps: Sequence[int]) -> list[float]:
        """Times at ``steps`` of the grid, on the host."""
        grid = schedule.times(self.config.num_steps, self.config.shortcut_mode)
        return [grid[step] for step in steps]

    def write_clean(
        self,
        cache: Cache,
        worlds: Sequence[int],
        clean: Tensor,
        index: Sequence[int],
        step: int,
        conditional: bool,
    ) -> None:
        """Keys of the newest clean chunks: at clean_t, with the null caption, into their slot.

        Args:
            clean: (B, C, W, H, W') latents of ``worlds``.
            index: per world, which chunk of its video that is.
            step: place within the stage (distilled weights see it).
            conditional: what the ada condition says; the one-pass sampler says True, in the
                three-pass sampler it is that of the pass.
        """
        config, slot = self.config, cache.config.history - 1
        t = torch.full((1, 1), config.clean_t, device=clean.device)
        text = CaptionReads([[self.null]] * len(worlds), self.backend, self.indices)
        interval = schedule.step_embedding(config, step)
        self.dit(
            clean[:, None],
            t,
            frame_index(index, 1, clean),
            cache.reads(worlds, slot, [config.clean_range], self.backend),
            text,
            conditional,
            interval,
            keys_only=True,
            gates=self.gates((config.clean_t,), t, text, conditional, interval),
        )

    def gates(
        self,
        times: Sequence[float],
        t: Tensor,
        text: CaptionReads,
        conditional: bool,
        interval: float | None,
    ) -> Gates:
        """`DiT.gates`, kept: the same times come again with every chunk, and mostly the captions.

        ``times`` are those of t (1, N), on the host.
        """
        key: tuple[Hashable, ...] = (tuple(times), conditional, interval)
        if self.dit.config.condition == "caption":
            key += tuple(tuple(row) for row in text.captions)
        if key not in self.known:
            self.known[key] = self.dit.gates(t, text, conditional, interval)
            if len(self.known) > GATES_KEPT:
                self.known.popitem(last=False)
        self.known.move_to_end(key)
        return self.known[key]


@dataclass(frozen=True, eq=False)
class Group:
    """The worlds of one stage. newest_clean: (B, C, W, H, W') of theirs.

    memo: what its forwards share, the positions of their tokens.
    """

    worlds: Sequence[int]
    lanes: Sequence[Lane]
    cache: Cache
    newest_clean: Tensor
    memo: Memo = field(default_factory=Memo)


class Passes:
    """The forwards of one step. A pass whose weight is zero is not run."""

    def __init__(
        self,
        guide: Guide,
        group: Group,
        x: Tensor,
        table: StepTable,
        steps: Sequence[int],
        step: int,
    ) -> None:
        """``steps``: place of every chunk on the grid; ``step``: place within the stage."""
        self.guide, self.group, self.x, self.table, self.step = guide, group, x, table, step
        self.times = guide.times(steps)
        self.interval = schedule.step_embedding(guide.config, step)
        self.ranges = [schedule.key_range(guide.config, s) for s in steps]
        self.captions = [lane.captions for lane in group.lanes]
        pending = [row for row, lane in enumerate(group.lanes) if lane.clean_pending]
        self.fresh_clean = pending if step == 0 else []

    def one(self) -> Tensor:
        """Distilled weights: guidance is in the weights; the oldest chunk may also run alone."""
        config = self.guide.config
        if self.fresh_clean:
            self.write_newest_clean(conditional=True)
        # Compared in float64: three quarters of the grid is t = float32(0.3), just above 0.3.
        solo = config.solo_weight > 0 and self.times[0] > config.solo_above_t
        chunks = [*range(self.x.shape[1]), 0] if solo else list(range(self.x.shape[1]))
        ranges = [*self.ranges, 1] if solo else self.ranges
        v = self.forward(chunks, ranges, self.captions, conditional=True)
        if solo:
            v, alone = v[:, :-1], v[:, -1]
            v[:, 0] = (1 - config.solo_weight) * v[:, 0] + config.solo_weight * alone
        return v

    def three(self) -> Tensor:
        """Base weights: (1 - a) v_none + (a - b) v_prev + b v_text, for each chunk its a and b."""
        weights = [schedule.guidance(self.guide.config, t) for t in self.times]
        none, prev, text = ([w[i] for w in weights] for i in range(3))
        null = [(self.guide.null,) * self.x.shape[1]] * len(self.group.lanes)
        v = torch.zeros_like(self.x)
        # Newer chunks read the keys of older ones, so a pass runs from the oldest chunk to the
        # newest that needs it. The text pass comes first: the clean keys that stay in the cache
        # are those of the pass without captions.
        if chunks := _until_last(text):
            if self.fresh_clean:
                self.write_newest_clean(conditional=True)
            self.add(v, 2, chunks, self.forward(chunks, self.ranges, self.captions, True))
        if self.fresh_clean:
            self.write_newest_clean(conditional=False)
        if chunks := _until_last(prev):
            self.add(v, 1, chunks, self.forward(chunks, self.ranges, null, False))
        if chunks := [i for i, w in enumerate(none) if w]:
            self.add(v, 0, chunks, self.forward(chunks, [1] * len(chunks), null, False))
        return v

    def add(self, v: Tensor, kind: int, chunks: Sequence[int], part: Tensor) -> None:
        """Add the velocity of some chunks to v (B, N, ...), weighted; kind: which weights."""
        weighted = taken(self.table.weights[kind], chunks, 1) * part
        for place, chunk in enumerate(chunks):
            v[:, chunk] += weighted[:, place]

    def write_newest_clean(self, conditional: bool) -> None:
        """Keys of the chunk that became clean at the end of the last stage."""
        group, rows = self.group, self.fresh_clean
        worlds = [group.worlds[row] for row in rows]
        before = [group.lanes[row].flight.first - 1 for row in rows]
        clean = group.newest_clean[self.guide.indices(rows)]
        self.guide.write_clean(group.cache, worlds, clean, before, self.step, conditional)

    def forward(
        self,
        chunks: Sequence[int],
        ranges: Sequence[int],
        captions: Sequence[Sequence[TextKeys]],
        conditional: bool,
    ) -> Tensor:
        """Velocity of some chunks in flight.

        Args:
            chunks: their places, 0 = oldest; one may occur twice.
            ranges: what each of them sees, in the order of ``chunks``.
            captions: per world, of all chunks in flight.
        """
        guide, group = self.guide, self.group
        slot, seen = group.cache.config.history, ranges[: len(chunks)]
        frames = group.memo.get("frames", (), self._frames)
        places = tuple(chunks)
        t = taken(self.table.t, chunks, 0)[None]
        text = CaptionReads(
            [[row[c] for c in chunks] for row in captions], guide.backend, guide.indices
        )
        times = [self.times[c] for c in chunks]
        return guide.dit(
            taken(self.x, chunks, 1),
            t,
            group.memo.get("places", places, lambda: taken(frames, chunks, 1)),
            group.cache.reads(group.worlds, slot, seen, guide.backend),
            text,
            conditional,
            self.interval,
            memo=group.memo,
            gates=guide.gates(times, t, text, conditional, self.interval),
        )

    def _frames(self) -> Tensor:
        first = [lane.flight.first for lane in self.group.lanes]
        return frame_index(first, self.x.shape[1], self.x)


def _until_last(weights: Sequence[float]) -> list[int]:
    """The chunks, from the oldest, that a pass with these weights must run."""
    return list(range(max((i + 1 for i, w in enumerate(weights) if w), default=0)))
