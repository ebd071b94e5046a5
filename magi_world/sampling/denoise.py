"""The denoise loop: chunks of video, each one stage nearer to clean.

Shapes: B worlds, N chunks in flight, C latent channels, W latent frames a chunk, H, W' latent size.

Base weights take three passes (own text, no text, alone), distilled ones take one (reference
section 4, "Guidance" and "One pass"). A pass whose weight is zero is not run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from magi_world.config import SamplerConfig
from magi_world.model.attention import Backend
from magi_world.model.dit import DiT, Gates, Memo, Pass
from magi_world.sampling import schedule
from magi_world.sampling.graphs import Graphs
from magi_world.sampling.kv_cache import (
    Cache,
    Indices,
    KeyValueCache,
    TextKV,
    TextReads,
    taken,
    upload,
)

Progress = Callable[[int, int], None]
GATES_KEPT = 32


@dataclass(frozen=True)
class DenoisingWindow:
    """Which consecutive chunks of one world are in flight, oldest (cleanest) first.

    first: index of the oldest chunk, counted from the start of the video.
    count: chunks in flight.
    newest_stage: stage of the newest one; each older chunk is one stage further.
    """

    first: int = 0
    count: int = 0
    newest_stage: int = 0

    @property
    def end(self) -> int:
        """Index of the next chunk to be admitted."""
        return self.first + self.count

    def stages(self) -> list[int]:
        """Stage of every chunk in flight, oldest first."""
        return [self.newest_stage + i for i in reversed(range(self.count))]

    def admit(self) -> DenoisingWindow:
        """One more chunk, as pure noise.

        Raises:
            ValueError: chunks are being drained, so that the new one would leave a gap.
        """
        if self.count and self.newest_stage != 1:
            raise ValueError(
                f"a chunk cannot be admitted while {self.count} chunks are being drained; "
                "drain them all or reset the world first"
            )
        return replace(self, count=self.count + 1, newest_stage=0)

    def advance(self, size: int) -> tuple[DenoisingWindow, bool]:
        """One stage on; the flag says that the oldest chunk has become clean and has left."""
        landed = self.newest_stage + self.count == size
        return DenoisingWindow(
            first=self.first + landed,
            count=self.count - landed,
            newest_stage=self.newest_stage + 1,
        ), landed


@dataclass(frozen=True, eq=False)
class Batch:
    """The worlds of one stage, all at the same point of their pipelines.

    stages: how many stages each chunk in flight has behind it, oldest first.
    first: per world, index of its oldest chunk in flight.
    texts: per world, what each chunk in flight is told.
    unwritten: rows whose newest clean chunk's keys are not in the cache yet.
    newest_clean: (B, C, W, H, W').
    starts: (row, chunk, latents (C, w, H, W')) of a partial prefix that replaces the first frames
        of a chunk in flight.
    memo: what the forwards share, the positions of their tokens.
    """

    worlds: Sequence[int]
    stages: Sequence[int]
    first: Sequence[int]
    texts: Sequence[Sequence[TextKV]]
    unwritten: Sequence[int]
    newest_clean: Tensor
    starts: Sequence[tuple[int, int, Tensor]]
    cache: Cache
    memo: Memo = field(default_factory=Memo)


@dataclass(frozen=True, eq=False)
class StepPlan:
    """The numbers of one Euler step for the chunks in flight; its tensors are on the device.

    times: of the chunks, on the host; t: (1, N), the same.
    dt: (1, N, 1, 1, 1, 1), to the next ones.
    ranges: how many chunks each one sees.    interval: of the second time embedding.
    solo: whether the oldest chunk also runs alone (one pass).
    scales, weights: three passes only; per pass (none, previous, text) the weight of every chunk,
        and the same as (1, N, 1, 1, 1, 1).
    """

    times: Sequence[float]
    t: Tensor
    dt: Tensor
    ranges: Sequence[int]
    interval: float | None
    solo: bool
    scales: Sequence[Sequence[float]]
    weights: Sequence[Tensor]


@dataclass(frozen=True, eq=False)
class Denoiser:
    """What all stages of a stream share.

    null: the null caption.    graphs: what replays forwards, or None.
    plans, known: the numbers of steps, the gates of recent forwards.
    """

    dit: DiT
    config: SamplerConfig
    backend: Backend
    null: TextKV
    indices: Indices
    graphs: Graphs | None = None
    plans: dict[tuple[int, ...], list[StepPlan]] = field(default_factory=dict)
    known: Memo = field(default_factory=lambda: Memo(GATES_KEPT))

    def plan(self, stages: Sequence[int], device: torch.device) -> list[StepPlan]:
        """The steps of a stage, for chunks at these stages; there are few different ones."""
        key = tuple(stages)
        if key not in self.plans:
            steps = range(self.config.steps_per_stage)
            self.plans[key] = [plan_step(self.config, key, step, device) for step in steps]
        return self.plans[key]

    def gates(
        self,
        times: Sequence[float],
        t: Tensor,
        text: TextReads,
        conditional: bool,
        interval: float | None,
    ) -> Gates:
        """`DiT.gates`, kept: the same times come again with every chunk, and mostly the captions.

        ``times`` are those of t (1, N), on the host.
        """
        key: tuple[Hashable, ...] = (tuple(times), conditional, interval)
        if self.dit.config.condition == "caption":
            key += tuple(tuple(row) for row in text.texts)
        return self.known.get(key, lambda: self.dit.gates(t, text, conditional, interval))


def denoise(model: Denoiser, batch: Batch, x: Tensor, progress: Progress | None = None) -> Tensor:
    """Move the chunks x (B, N, C, W, H, W'), oldest first, one stage on."""
    plan = model.plan(batch.stages, x.device)
    for i, step in enumerate(plan):
        put_starts(batch, x)
        unwritten = batch.unwritten if i == 0 else ()
        if model.config.passes == 1:
            v = one_pass(model, batch, x, step, unwritten)
        else:
            v = three_passes(model, batch, x, step, unwritten)
        x = x + v * step.dt
        if progress is not None:
            progress(i + 1, len(plan))
    return x


def one_pass(
    model: Denoiser, batch: Batch, x: Tensor, step: StepPlan, unwritten: Sequence[int]
) -> Tensor:
    """Distilled weights: guidance is in the weights; the oldest chunk may also run alone."""
    beside = cleans_beside(model, batch, unwritten)
    if unwritten and not beside:
        write_newest_clean(model, batch, unwritten, step, conditional=True)
    chunks, ranges = list(range(x.shape[1])), step.ranges
    if step.solo:
        chunks, ranges = [*chunks, 0], [*ranges, 1]
    v = velocity(model, batch, x, step, chunks, ranges, batch.texts, True, beside)
    if not step.solo:
        return v
    v, alone = v[:, :-1], v[:, -1]
    weight = model.config.solo_weight
    v[:, 0] = (1 - weight) * v[:, 0] + weight * alone
    return v


def three_passes(
    model: Denoiser, batch: Batch, x: Tensor, step: StepPlan, unwritten: Sequence[int]
) -> Tensor:
    """Base weights: (1 - a) v_none + (a - b) v_prev + b v_text, for each chunk its a and b."""
    none, prev, text = step.scales
    none_w, prev_w, text_w = step.weights
    null = [(model.null,) * x.shape[1]] * len(x)
    v, beside = torch.zeros_like(x), cleans_beside(model, batch, unwritten)
    # Newer chunks read the keys of older ones, so a pass runs from the oldest chunk to the newest
    # that needs it. The text pass comes first: the clean keys that stay in the cache are those of
    # the pass without captions.
    if chunks := _until_last(text):
        if unwritten and not beside:
            write_newest_clean(model, batch, unwritten, step, conditional=True)
        part = velocity(model, batch, x, step, chunks, step.ranges, batch.texts, True, beside)
        add_weighted(v, text_w, chunks, part)
    chunks = _until_last(prev)
    if unwritten and not (beside and chunks):
        write_newest_clean(model, batch, unwritten, step, conditional=False)
    if chunks:
        part = velocity(model, batch, x, step, chunks, step.ranges, null, False, beside)
        add_weighted(v, prev_w, chunks, part)
    if chunks := [i for i, w in enumerate(none) if w]:
        part = velocity(model, batch, x, step, chunks, [1] * len(chunks), null, conditional=False)
        add_weighted(v, none_w, chunks, part)
    return v


def cleans_beside(model: Denoiser, batch: Batch, unwritten: Sequence[int]) -> bool:
    """Whether the keys of the newest clean chunks are written by a forward of those in flight.

    That is so only where every world of the batch has such a chunk.
    """
    return model.dit.clean_beside and len(unwritten) == len(batch.worlds)


def velocity(
    model: Denoiser,
    batch: Batch,
    x: Tensor,
    step: StepPlan,
    chunks: Sequence[int],
    ranges: Sequence[int],
    texts: Sequence[Sequence[TextKV]],
    conditional: bool,
    with_clean: bool = False,
) -> Tensor:
    """One forward: velocity (B, len(chunks), C, W, H, W') of some chunks in flight.

    Args:
        chunks: their places, 0 = oldest; one may occur twice.
        ranges: what each of them sees, in the order of ``chunks``.
        texts: per world, of all chunks in flight.
        conditional: what the ada condition says.
        with_clean: the newest clean chunks go in front of them; layer by layer their keys are
            written before they are read, so this is `write_newest_clean` in the same forward.
    """
    memo, cache, config = batch.memo, batch.cache, model.config
    frames = memo.get("frames", lambda: frame_index(batch.first, x.shape[1], x))
    places = memo.get(("places", *chunks), lambda: taken(frames, chunks, 1))
    t, times = taken(step.t, chunks, 1), [step.times[c] for c in chunks]
    captions = [[row[c] for c in chunks] for row in texts]
    x, ranges, slot = taken(x, chunks, 1), list(ranges[: len(chunks)]), cache.config.history
    if with_clean:
        before = frame_index([first - 1 for first in batch.first], 1, x)
        places = torch.cat([before, places], 1)
        t, times = F.pad(t, (1, 0), value=config.clean_t), [config.clean_t, *times]
        captions = [[model.null, *row] for row in captions]
        x = torch.cat([batch.newest_clean[:, None], x], 1)
        ranges, slot = [config.clean_range, *ranges], slot - 1
    text = TextReads(captions, model.backend, model.indices)
    given = Pass(
        t,
        places,
        cache.reads(batch.worlds, slot, ranges, model.backend),
        text,
        conditional,
        step.interval,
        memo=memo,
        gates=model.gates(times, t, text, conditional, step.interval),
    )
    if model.graphs is None or not isinstance(cache, KeyValueCache):
        v = model.dit(x, given)
    else:
        seen = (slot, *ranges, *(cache.filled[world] for world in batch.worlds))
        told = (*times, step.interval, conditional, *(text for row in captions for text in row))
        key = (x.shape, tuple(batch.worlds), seen, told)
        kept = [model.indices(rows) for rows in text.groups.values()]
        v = model.graphs.forward(model.dit, x, given, key, cache.k, kept)
    return v[:, 1:] if with_clean else v


def add_weighted(v: Tensor, weights: Tensor, chunks: Sequence[int], part: Tensor) -> None:
    """Add the velocity ``part`` of some chunks to v (B, N, ...), in place."""
    weighted = taken(weights, chunks, 1) * part
    for place, chunk in enumerate(chunks):
        v[:, chunk] += weighted[:, place]


def write_newest_clean(
    model: Denoiser, batch: Batch, rows: Sequence[int], step: StepPlan, conditional: bool
) -> None:
    """Keys of the chunks that became clean at the end of the last stage."""
    worlds, before = [batch.worlds[r] for r in rows], [batch.first[r] - 1 for r in rows]
    clean = batch.newest_clean[model.indices(rows)]
    write_clean(model, batch.cache, worlds, clean, before, step.interval, conditional)


def write_clean(
    model: Denoiser,
    cache: Cache,
    worlds: Sequence[int],
    clean: Tensor,
    index: Sequence[int],
    interval: float | None,
    conditional: bool,
) -> None:
    """Keys of the newest clean chunks: at clean_t, with the null caption, into their slot.

    Args:
        clean: (B, C, W, H, W') latents of ``worlds``.
        index: per world, which chunk of its video that is.
        interval: of the second time embedding.
        conditional: what the ada condition says; one pass says True, of three it is that of the
            pass.
    """
    config = model.config
    t = torch.full((1, 1), config.clean_t, device=clean.device)
    text = TextReads([[model.null]] * len(worlds), model.backend, model.indices)
    given = Pass(
        t,
        frame_index(index, 1, clean),
        cache.reads(worlds, cache.config.history - 1, [config.clean_range], model.backend),
        text,
        conditional,
        interval,
        keys_only=True,
        gates=model.gates((config.clean_t,), t, text, conditional, interval),
    )
    model.dit(clean[:, None], given)


def plan_step(
    config: SamplerConfig, stages: Sequence[int], step: int, device: torch.device
) -> StepPlan:
    """Euler step ``step`` of a stage, for chunks that have so many stages behind them."""
    places = [schedule.step_of(config, stage, step) for stage in stages]
    all_times = schedule.times(config.num_steps, config.shortcut_mode, config.shift)
    times = [all_times[place] for place in places]
    grid = schedule.time_grid(config.num_steps, config.shortcut_mode, config.shift)
    t, after = grid[places], grid[[place + 1 for place in places]]
    rows = [schedule.guidance(config, time) for time in times] if config.passes == 3 else []

    def broadcast(x: Tensor) -> Tensor:
        return upload(x.view(1, -1, 1, 1, 1, 1), device)

    return StepPlan(
        times=times,
        t=upload(t[None], device),
        dt=broadcast(after - t),
        ranges=[schedule.key_range(config, place) for place in places],
        interval=schedule.step_embedding(config, step),
        # Compared in float64: three quarters of the grid is t = float32(0.3), just above 0.3.
        solo=config.solo_weight > 0 and times[0] > config.solo_above_t,
        scales=list(zip(*rows, strict=True)),
        weights=[broadcast(w) for w in torch.tensor(rows).unbind(1)] if rows else [],
    )


def extra_chunks(config: SamplerConfig) -> int:
    """Chunks of a forward beyond the window: the oldest one's solo copy."""
    return int(config.passes == 1 and config.solo_weight > 0)


def seeded_noise(seed: int, index: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise of chunk ``index``, float32 on the CPU.

    A function of (seed, index) alone: no generator has to be carried along, and a chunk starts
    from the same noise whatever the window, the batch or the device.
    """
    digest = hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    return torch.randn(shape, generator=generator)


def put_starts(batch: Batch, x: Tensor) -> None:
    """Put partial prefixes over the first frames of their chunks in x (B, N, C, ...), in place."""
    for row, chunk, start in batch.starts:
        x[row, chunk, :, : start.shape[1]] = start


def frame_index(first_chunks: Sequence[int], count: int, like: Tensor) -> Tensor:
    """(B, count, W) index of each latent frame of ``count`` chunks from the given ones on.

    ``like`` is a latent tensor (.., W, H, W') on the device that is wanted, where all of it is
    made: nothing is copied from the host.
    """
    width, device = like.shape[-3], like.device
    rows = {
        first: torch.arange(first * width, (first + count) * width, device=device).view(count, -1)
        for first in set(first_chunks)
    }
    if len(rows) == 1:
        return rows[first_chunks[0]].expand(len(first_chunks), -1, -1)
    return torch.stack([rows[first] for first in first_chunks])


def _until_last(weights: Sequence[float]) -> list[int]:
    """The chunks, from the oldest, that a pass with these weights must run."""
    return list(range(max((i + 1 for i, w in enumerate(weights) if w), default=0)))
