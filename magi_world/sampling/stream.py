"""Endless video in latents: one new chunk of noise goes in, one clean chunk comes out.

Shapes: B worlds, N chunks in flight, C latent channels, W latent frames a chunk, H, W' latent size.

A *stage* is num_steps / window_size denoising steps. It admits one chunk of noise, moves every
chunk in flight a stage on, and lets the oldest one go once it is clean. An endless stream runs
stages for ever; a finite video is the same stream, drained at its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from magi_world.config import SamplerConfig
from magi_world.interrupts import uninterrupted
from magi_world.model.attention import Backend, Setting, check_backend, settle_backend
from magi_world.model.dit import NULL_CAPTION_ROWS, DiT
from magi_world.sampling.cache import Cache, CacheConfig, KeyValueCache, MakeCache
from magi_world.sampling.captions import TextKeys
from magi_world.sampling.flight import Flight, seeded_noise
from magi_world.sampling.guide import Group, Guide, extra_chunks
from magi_world.sampling.lane import Lane, overwrite_start
from magi_world.sampling.rows import Indices, upload

Noise = Callable[[int, int, tuple[int, ...]], Tensor]
Progress = Callable[[int, int], None]


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
class StreamState:
    """All that decides the future of a stream. Tensors in it are never written to."""

    lanes: tuple[Lane, ...]
    latents: Tensor
    newest_clean: Tensor
    cache: Cache


@dataclass(frozen=True, eq=False)
class StageResult:
    """A stage that was computed, and has changed nothing yet (`ChunkStream.commit`).

    lanes: one per world, as they were while it ran.    x: (len(worlds), N, C, W, H, W').
    """

    worlds: Sequence[int]
    lanes: Sequence[Lane]
    x: Tensor
    landed: bool

    @property
    def clean(self) -> Tensor | None:
        """Latents (len(worlds), C, W, H, W') of the chunk that becomes clean, if one does."""
        return self.x[:, 0] if self.landed else None


@dataclass(frozen=True, eq=False)
class Position:
    """Where a stream stands between two clean chunks: all that an admission changes."""

    lanes: tuple[Lane, ...]
    latents: Tensor
    newest_clean: Tensor


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
                flight=window + extra_chunks(sampler),
                tokens=frames * (height // patch) * (width // patch),
                kv_groups=dit.config.kv_groups,
                head_dim=dit.config.head_dim,
                dtype=dit.dtype,
                device=self.device,
            )
        )
        self.latents = torch.zeros(worlds, window, *self.chunk_shape, device=self.device)
        self.newest_clean = torch.zeros(worlds, *self.chunk_shape, device=self.device)
        self.lanes = [Lane() for _ in range(worlds)]
        self.indices = Indices(self.device)
        self.null = self._null(null_front)
        self.guide = Guide(dit, sampler, self.backend, self.null, self.indices)

    @torch.inference_mode()
    def caption(self, features: Tensor | None) -> TextKeys:
        """Text keys of caption features (L, caption_channels); None or L = 0 is the null caption.

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
        return self._keys(features.to(self.device))

    @torch.inference_mode()
    def _null(self, front: Tensor | None) -> TextKeys:
        if front is None:
            return self._keys(None)
        table = self.dit.y_embedder.null_caption_embedding
        return self._keys(torch.cat([front.to(table), table])[:NULL_CAPTION_ROWS])

    def _keys(self, features: Tensor | None) -> TextKeys:
        layers = tuple((k[None], v[None]) for k, v in self.dit.text_keys(features))
        return TextKeys(features, layers)

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
            self.lanes[world] = Lane(seeds[row], Flight(whole), start=start, start_chunk=whole)
        # A clean chunk that sees only itself leaves no trace in later ones, so of a long prefix
        # only what stays in the cache has to be run.
        alone = self.config.sampler.clean_range == 1
        for index in range(max(0, whole - self.cache.config.history) if alone else 0, whole):
            if self.cache.config.history:
                self.cache.push(worlds)
                clean, place = chunks[:, index], [index] * len(worlds)
                conditional = self.config.sampler.passes == 1
                self.guide.write_clean(self.cache, worlds, clean, place, 0, conditional)

    @torch.inference_mode()
    def stage(
        self,
        worlds: Sequence[int],
        captions: Sequence[TextKeys] | None,
        progress: Progress | None = None,
    ) -> Tensor | None:
        """Run one stage of these worlds, which must be equally far into their pipeline.

        Args:
            captions: one per world for the chunk that is admitted; None admits none (draining).
            progress: called with (steps done, steps of the stage).

        Returns:
            Latents (len(worlds), C, W, H, W') of the chunk that became clean, or None.

        Raises:
            ValueError: the worlds are at different points, or nothing is left in flight.
        """
        stage = self.compute(worlds, captions, progress)
        self.commit(stage)
        return stage.clean

    @torch.inference_mode()
    def compute(
        self,
        worlds: Sequence[int],
        captions: Sequence[TextKeys] | None,
        progress: Progress | None = None,
    ) -> StageResult:
        """The work of `stage`; nothing but the cache's scratch changes before `commit`.

        Raises:
            ValueError: as `stage`.
        """
        if captions is None:
            lanes = [self.lanes[world] for world in worlds]
        else:
            lanes = [self._admit(w, c) for w, c in zip(worlds, captions, strict=True)]
        form = {(lane.flight.count, lane.flight.newest_stage) for lane in lanes}
        if len(form) != 1:
            raise ValueError(f"worlds {list(worlds)} are at different points of their pipelines")
        if not lanes[0].flight.count:
            raise ValueError(f"worlds {list(worlds)} have no chunk in flight and none was given")
        x = self._in_flight(worlds, lanes, admitted=captions is not None)
        group = Group(worlds, lanes, self.cache, self.newest_clean[self.indices(worlds)])
        for step in range(self.config.sampler.steps_per_stage):
            x = self.guide.denoise(group, x, step)
            if progress is not None:
                progress(step + 1, self.config.sampler.steps_per_stage)
        landed = lanes[0].flight.advance(self.config.sampler.window_size)[1]
        return StageResult(worlds, lanes, x, landed)

    @torch.inference_mode()
    def commit(self, stage: StageResult) -> None:
        """Move the worlds of a stage on."""
        lanes, x, landed = stage.lanes, stage.x, stage.landed
        flights = [lane.flight.advance(self.config.sampler.window_size)[0] for lane in lanes]
        history = self.cache.config.history
        overwrite_start(lanes, clean := x.clone())
        with uninterrupted():
            if landed and history:
                self.cache.push(stage.worlds)
            for row, world in enumerate(stage.worlds):
                lane, flight = lanes[row], flights[row]
                pending = bool(history) if landed else False
                self.lanes[world] = replace(
                    lane, flight=flight, captions=lane.captions[landed:], clean_pending=pending
                )
                self.latents[world, : flight.count] = x[row, landed:]
                if landed:
                    self.newest_clean[world] = clean[row, 0]

    def position(self) -> Position:
        """Where it stands; `go_back` returns here until a chunk has become clean."""
        return Position(tuple(self.lanes), self.latents.clone(), self.newest_clean.clone())

    def go_back(self, position: Position) -> None:
        """Undo what was admitted, and which captions were replaced, since `position`."""
        with uninterrupted():
            self.lanes = list(position.lanes)
            self.latents, self.newest_clean = position.latents, position.newest_clean

    def replace_captions(self, world: int, caption: TextKeys) -> None:
        """Steer the chunks that are already in flight as well."""
        lane = self.lanes[world]
        self.lanes[world] = replace(lane, captions=(caption,) * lane.flight.count)

    def state(self, worlds: Sequence[int] | None = None) -> StreamState:
        """Everything that decides the future; costs nothing until the stream moves on.

        With ``worlds`` it is a copy of these alone, which keeps none of the others in memory.
        """
        if worlds is None:
            latents, newest = self.latents.clone(), self.newest_clean.clone()
            return StreamState(tuple(self.lanes), latents, newest, self.cache.share())
        rows = self.indices(worlds)
        k, v = (x[:, rows] for x in self.cache.clean())
        filled = [self.cache.filled[world] for world in worlds]
        config = replace(self.cache.config, worlds=len(worlds))
        lanes = tuple(self.lanes[world] for world in worlds)
        cache = KeyValueCache.from_clean(config, filled, k, v)
        latents, newest = self.latents[rows].clone(), self.newest_clean[rows].clone()
        return StreamState(lanes, latents, newest, cache)

    def set_state(self, state: StreamState) -> None:
        """Continue from ``state``, which stays valid."""
        lanes = [self._ready(lane) for lane in state.lanes]
        self.latents, self.newest_clean = state.latents.clone(), state.newest_clean.clone()
        self.cache = self.cache.taken(state.cache)
        self.lanes = lanes

    def set_lane(self, world: int, state: StreamState, row: int) -> None:
        """Continue one world as row ``row`` of ``state``; the other worlds go on untouched."""
        lane = self._ready(state.lanes[row])
        self.cache.copy_world(world, state.cache, row)
        self.latents[world] = state.latents[row]
        self.newest_clean[world] = state.newest_clean[row]
        self.lanes[world] = lane

    def _ready(self, lane: Lane) -> Lane:
        # A caption that comes from a file has its features only, one of another device its keys
        # there.
        captions = (c if self._is_here(c) else self.caption(c.features) for c in lane.captions)
        start = None if lane.start is None else lane.start.to(self.device)
        return replace(lane, captions=tuple(captions), start=start)

    def _is_here(self, caption: TextKeys) -> bool:
        return bool(caption.layers) and caption.layers[0][0].device == self.device

    def _admit(self, world: int, caption: TextKeys) -> Lane:
        lane = self.lanes[world]
        return replace(lane, flight=lane.flight.admit(), captions=(*lane.captions, caption))

    def _in_flight(self, worlds: Sequence[int], lanes: Sequence[Lane], admitted: bool) -> Tensor:
        count = lanes[0].flight.count
        x = self.latents[self.indices(worlds), :count].clone()
        if admitted:
            for row, lane in enumerate(lanes):
                noise = self.noise(lane.seed, lane.flight.end - 1, self.chunk_shape)
                x[row, -1] = upload(noise * self.config.noise_scale, self.device)
        return x
