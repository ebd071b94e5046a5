"""Endless video in latents: one new chunk of noise goes in, one clean chunk comes out.

Shapes: B worlds, N chunks in flight, C latent channels, W latent frames a chunk, H, W' latent size.

A *stage* is num_steps / window_size denoising steps. It admits one chunk of noise, moves every
chunk in flight a stage on, and lets the oldest one go once it is clean. An endless stream runs
stages for ever; a finite video is the same stream, drained at its end.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType

import torch
from torch import Tensor

from magi_world.config import SamplerConfig
from magi_world.model.attention import Backend, Setting, check_backend, settle_backend
from magi_world.model.dit import NULL_CAPTION_ROWS, DiT
from magi_world.sampling import schedule
from magi_world.sampling.denoise import (
    Batch,
    Denoiser,
    DenoisingWindow,
    Progress,
    denoise,
    extra_chunks,
    put_starts,
    seeded_noise,
    write_clean,
)
from magi_world.sampling.graphs import Graphs
from magi_world.sampling.kv_cache import (
    Cache,
    CacheConfig,
    Indices,
    KeyValueCache,
    MakeCache,
    TextKV,
    upload,
)

Noise = Callable[[int, int, tuple[int, ...]], Tensor]


@dataclass(frozen=True)
class StreamConfig:
    """What a stream is built for. ``latent_size`` is (H, W') of a latent frame."""

    sampler: SamplerConfig
    latent_size: tuple[int, int]
    num_worlds: int = 1
    attention: Backend = "sdpa"
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        count, scale = self.num_worlds, self.noise_scale
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"num_worlds is {count!r:.40}; it must be a whole number from 1")
        number = isinstance(scale, int | float) and not isinstance(scale, bool)
        if not number or not 0 < scale < math.inf:
            raise ValueError(f"noise_scale is {scale!r:.40}; it must be a positive number")
        check_backend(self.attention)


@dataclass(frozen=True)
class RowState:
    """Everything about one world that is not in the big tensors.

    texts: one per chunk in flight, oldest first.
    clean_pending: the newest clean chunk's keys are not in the cache yet.
    start: latents (C, w, H, W'), w < chunk_width, that replace the first frames of chunk
        ``start_chunk``; None without a partial prefix.
    """

    seed: int = 0
    window: DenoisingWindow = field(default_factory=DenoisingWindow)
    texts: tuple[TextKV, ...] = ()
    clean_pending: bool = False
    start: Tensor | None = None
    start_chunk: int = 0

    @property
    def repeated(self) -> int:
        """Latent frames of the oldest chunk in flight which only repeat the start."""
        if self.start is None or self.window.first != self.start_chunk:
            return 0
        frames = self.start.shape[1]
        # A start of a single latent frame is part of the video (reference section 4, "Prefix").
        return 0 if self.start_chunk == 0 and frames == 1 else frames


@dataclass(frozen=True)
class StreamState:
    """All that decides the future of a stream. Tensors in it are never written to."""

    rows: tuple[RowState, ...]
    latents: Tensor
    newest_clean: Tensor
    cache: Cache

    def select(self, rows: Sequence[int]) -> StreamState:
        """A copy of some worlds, which keeps none of the others in memory."""
        k, v = (x[:, rows] for x in self.cache.clean())
        config = replace(self.cache.config, worlds=len(rows))
        return StreamState(
            tuple(self.rows[row] for row in rows),
            self.latents[rows],
            self.newest_clean[rows],
            KeyValueCache.from_clean(config, [self.cache.filled[row] for row in rows], k, v),
        )

    @staticmethod
    def joined(states: Sequence[StreamState]) -> StreamState:
        """All worlds of several states of the same form, in this order."""
        pairs = [state.cache.clean() for state in states]
        k, v = (torch.cat([pair[i] for pair in pairs], 1) for i in range(2))
        filled = [count for state in states for count in state.cache.filled]
        config = replace(states[0].cache.config, worlds=len(filled))
        return StreamState(
            tuple(row for state in states for row in state.rows),
            torch.cat([state.latents for state in states]),
            torch.cat([state.newest_clean for state in states]),
            KeyValueCache.from_clean(config, filled, k, v),
        )


@dataclass(frozen=True, eq=False)
class StageResult:
    """A stage that was computed, and has changed nothing yet (`ChunkStream.commit`).

    rows: one per world of the batch, as they were while it ran.    x: (B, N, C, W, H, W').
    """

    batch: Batch
    rows: Sequence[RowState]
    x: Tensor
    landed: bool

    @property
    def clean(self) -> Tensor | None:
        """Latents (B, C, W, H, W') of the chunk that becomes clean, if one does."""
        return self.x[:, 0] if self.landed else None


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Inside, Ctrl-C waits for the end: of microseconds, in which a state is half old, half new.

    In other threads than the main one nothing has to be done: Python interrupts only that one.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    asked: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: asked.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if asked:
            before(*asked[0])


class ChunkStream:
    """B endless streams of latents, denoised in one batch over a rolling cache."""

    def __init__(
        self,
        dit: DiT,
        config: StreamConfig,
        noise: Noise = seeded_noise,
        make_cache: MakeCache = KeyValueCache,
        null_front: Tensor | None = None,
    ) -> None:
        """``noise(seed, chunk index, shape)`` gives what a chunk starts from; ``make_cache``
        says where the history is kept; ``null_front`` (n, caption_channels) are features that the
        null caption begins with."""
        self.dit, self.config, self.noise = dit, config, noise
        self.device = dit.final_linear.linear.weight.device
        if dit.config.fp8 and dit.dtype != torch.bfloat16:
            raise ValueError(
                f"dtype is {str(dit.dtype).removeprefix('torch.')}, but the weights are fp8, whose "
                "layers answer in bfloat16; use dtype='bfloat16'"
            )
        self.backend = settle_backend(
            config.attention, Setting.of(self.device, dit.dtype, dit.config.head_dim)
        )
        sampler, (height, width) = config.sampler, config.latent_size
        patch = dit.config.patch
        if height % patch or width % patch:
            raise ValueError(
                f"latent_size is {config.latent_size}; both must be divisible by the patch {patch}"
            )
        frames = sampler.chunk_width
        self.chunk_shape = (dit.config.latent_channels, frames, height, width)
        worlds, window = config.num_worlds, sampler.window_size
        self.cache = make_cache(
            CacheConfig(
                layers=dit.config.layers,
                worlds=worlds,
                history=sampler.history,
                window=window + extra_chunks(sampler),
                tokens=frames * (height // patch) * (width // patch),
                kv_groups=dit.config.kv_groups,
                head_dim=dit.config.head_dim,
                dtype=dit.dtype,
                device=self.device,
            )
        )
        self.latents = torch.zeros(worlds, window, *self.chunk_shape, device=self.device)
        self.newest_clean = torch.zeros(worlds, *self.chunk_shape, device=self.device)
        self.rows = [RowState() for _ in range(worlds)]
        self.indices = Indices(self.device)
        self.null = self._null(null_front)
        graphs = Graphs(self.device) if dit.graphs else None
        self.denoiser = Denoiser(dit, sampler, self.backend, self.null, self.indices, graphs)

    @torch.inference_mode()
    def text_kv(self, features: Tensor | None) -> TextKV:
        """Keys and values of features (L, caption_channels); None or L = 0 is the null caption.

        Raises:
            ValueError: wrong number of channels.
        """
        if features is None or len(features) == 0:
            return self.null
        channels = self.dit.config.caption_channels
        if features.ndim != 2 or features.shape[1] != channels:
            raise ValueError(
                f"caption features have shape {tuple(features.shape)}; expected (L, {channels})"
            )
        return self._kv(features.to(self.device))

    @torch.inference_mode()
    def _null(self, front: Tensor | None) -> TextKV:
        if front is None:
            return self._kv(None)
        table = self.dit.y_embedder.null_caption_embedding
        return self._kv(torch.cat([front.to(table), table])[:NULL_CAPTION_ROWS])

    def _kv(self, features: Tensor | None) -> TextKV:
        layers = tuple((k[None], v[None]) for k, v in self.dit.text_keys(features))
        return TextKV(features, layers)

    @torch.inference_mode()
    def reset(self, worlds: Sequence[int], seeds: Sequence[int], prefix: Tensor | None) -> None:
        """Start these worlds anew. No other world is touched.

        Args:
            seeds: one per world.
            prefix: scaled latents (len(worlds), C, T, H, W') of any length T, or None.

        Raises:
            ValueError: wrong shape of the prefix.
        """
        channels, width, *size = self.chunk_shape
        prefix = torch.zeros(len(worlds), channels, 0, *size) if prefix is None else prefix
        expected = (len(worlds), channels, prefix.shape[2], *size)
        if tuple(prefix.shape) != expected:
            raise ValueError(f"prefix has shape {tuple(prefix.shape)}; expected {expected}")
        prefix = prefix.to(self.device, torch.float32)
        whole, rest = divmod(prefix.shape[2], width)
        chunks = prefix[:, :, : whole * width].unflatten(2, (whole, width)).transpose(1, 2)
        self.cache.own()
        self.cache.forget(worlds)
        for row, world in enumerate(worlds):
            start = prefix[row, :, whole * width :].clone() if rest else None
            window = DenoisingWindow(whole)
            self.rows[world] = RowState(seeds[row], window, start=start, start_chunk=whole)
            self.newest_clean[world] = chunks[row, -1] if whole else 0.0
        # A clean chunk that sees only itself leaves no trace in later ones, so of a long prefix
        # only what stays in the cache has to be run.
        sampler, history = self.config.sampler, self.cache.config.history
        kept = max(0, whole - history) if sampler.clean_range == 1 else 0
        for index in range(kept, whole if history else 0):
            self.cache.push(worlds)
            write_clean(
                self.denoiser,
                self.cache,
                worlds,
                chunks[:, index],
                [index] * len(worlds),
                schedule.step_embedding(sampler, 0),
                conditional=sampler.passes == 1,
            )

    @torch.inference_mode()
    def stage(
        self,
        worlds: Sequence[int],
        texts: Sequence[TextKV] | None,
        progress: Progress | None = None,
    ) -> Tensor | None:
        """Run one stage of these worlds, which must be equally far into their pipeline.

        Args:
            texts: one per world for the chunk that is admitted; None admits none (draining).
            progress: called with (steps done, steps of the stage).

        Returns:
            Latents (len(worlds), C, W, H, W') of the chunk that became clean, or None.

        Raises:
            ValueError: the worlds are at different points, or nothing is left in flight.
        """
        stage = self.compute(worlds, texts, progress)
        self.commit(stage)
        return stage.clean

    @torch.inference_mode()
    def compute(
        self,
        worlds: Sequence[int],
        texts: Sequence[TextKV] | None,
        progress: Progress | None = None,
    ) -> StageResult:
        """The work of `stage`; nothing but the cache's scratch changes before `commit`.

        Raises:
            ValueError: as `stage`.
        """
        rows = [self.rows[world] for world in worlds]
        if texts is not None:
            rows = [
                replace(row, window=row.window.admit(), texts=(*row.texts, text))
                for row, text in zip(rows, texts, strict=True)
            ]
        if len({(row.window.count, row.window.newest_stage) for row in rows}) != 1:
            raise ValueError(f"worlds {list(worlds)} are at different points of their pipelines")
        if not rows[0].window.count:
            raise ValueError(f"worlds {list(worlds)} have no chunk in flight and none was given")
        batch = self._batch(worlds, rows)
        x = self.latents[self.indices(worlds), : len(batch.stages)].clone()
        if texts is not None:
            for i, row in enumerate(rows):
                noise = self.noise(row.seed, row.window.end - 1, self.chunk_shape)
                x[i, -1] = upload(noise * self.config.noise_scale, self.device)
        x = denoise(self.denoiser, batch, x, progress)
        landed = rows[0].window.advance(self.config.sampler.window_size)[1]
        return StageResult(batch, rows, x, landed)

    @torch.inference_mode()
    def commit(self, stage: StageResult) -> None:
        """Move the worlds of a stage on."""
        batch, x, landed = stage.batch, stage.x, stage.landed
        pending = landed and self.cache.config.history > 0
        put_starts(batch, clean := x.clone())
        with uninterrupted():
            if pending:
                self.cache.push(batch.worlds)
            for i, (world, row) in enumerate(zip(batch.worlds, stage.rows, strict=True)):
                window, _ = row.window.advance(self.config.sampler.window_size)
                texts = row.texts[landed:]
                self.rows[world] = replace(row, window=window, texts=texts, clean_pending=pending)
                self.latents[world, : window.count] = x[i, landed:]
                if landed:
                    self.newest_clean[world] = clean[i, 0]

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Where the inside ends early, what it admitted and steered is undone; nothing that
        became clean is."""
        before = list(self.rows), self.latents.clone(), self.newest_clean.clone()
        try:
            yield
        except BaseException:
            with uninterrupted():
                self.rows, self.latents, self.newest_clean = before
            raise

    def steer(self, world: int, text: TextKV) -> None:
        """Put the chunks that are already in flight under another text as well."""
        row = self.rows[world]
        self.rows[world] = replace(row, texts=(text,) * row.window.count)

    def state(self) -> StreamState:
        """Everything that decides the future; costs nothing until the stream moves on."""
        latents, newest = self.latents.clone(), self.newest_clean.clone()
        return StreamState(tuple(self.rows), latents, newest, self.cache.share())

    def state_of(self, worlds: Sequence[int]) -> StreamState:
        """The same of some worlds alone, as a copy."""
        return StreamState(tuple(self.rows), self.latents, self.newest_clean, self.cache).select(
            worlds
        )

    def set_state(self, state: StreamState) -> None:
        """Continue from ``state``, which stays valid."""
        rows = [self._here(row) for row in state.rows]
        self.latents = state.latents.to(self.device, copy=True)
        self.newest_clean = state.newest_clean.to(self.device, copy=True)
        self.cache = self.cache.taken(state.cache)
        self.rows = rows

    def set_row(self, world: int, state: StreamState, row: int) -> None:
        """Continue one world as row ``row`` of ``state``; the other worlds go on untouched."""
        continued = self._here(state.rows[row])
        self.cache.copy_world(world, state.cache, row)
        self.latents[world] = state.latents[row]
        self.newest_clean[world] = state.newest_clean[row]
        self.rows[world] = continued

    def _here(self, row: RowState) -> RowState:
        # A text that comes from a file has its features only, one of another device its keys there.
        texts = tuple(
            text
            if text.layers and text.layers[0][0].device == self.device
            else self.text_kv(text.features)
            for text in row.texts
        )
        start = None if row.start is None else row.start.to(self.device)
        return replace(row, texts=texts, start=start)

    def _batch(self, worlds: Sequence[int], rows: Sequence[RowState]) -> Batch:
        starts = [
            (i, row.start_chunk - row.window.first, row.start)
            for i, row in enumerate(rows)
            if row.start is not None and 0 <= row.start_chunk - row.window.first < row.window.count
        ]
        return Batch(
            worlds,
            stages=rows[0].window.stages(),
            first=[row.window.first for row in rows],
            texts=[row.texts for row in rows],
            unwritten=[i for i, row in enumerate(rows) if row.clean_pending],
            newest_clean=self.newest_clean[self.indices(worlds)],
            starts=starts,
            cache=self.cache,
        )
