"""The parts of a world that never change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from magi_world.config import DiTConfig, MagiConfig
from magi_world.io.weights import find_nan
from magi_world.language import Interpreter
from magi_world.model.dit import DiT
from magi_world.model.text import TextEncoder
from magi_world.model.tiling import Spread, TileConfig, decode_tiled
from magi_world.model.vae import VAE, video_to_frames
from magi_world.sampling.cache import KeyValueCache, MakeCache
from magi_world.world.chunk import Chunk
from magi_world.world.spec import WorldSpec

# (sizes) -> a transformer to be filled, and prefixes of stored tensors that it does not want.
MakeDiT = Callable[[DiTConfig], tuple[DiT, tuple[str, ...]]]


def whole_dit(config: DiTConfig) -> tuple[DiT, tuple[str, ...]]:
    """All of the transformer, which wants everything that is stored."""
    return DiT(config), ()


@dataclass(frozen=True, eq=False)
class WorldParts:
    """What all worlds made from one package share.

    starts: (K, C, t, h, l) scaled latents of real start videos, or None.
    heads: optional predictor of reward and end on latents.
    tile: how frames larger than the VAE was trained on are encoded and decoded; None = at once.
    make_cache: where the history is kept.    spread: what runs the tiles, here or elsewhere.
    processes: that work on it together.
    null_front: (n, Cc) features that the null caption begins with, or None.
    beside: where pixels are made while the next chunk is denoised, or None.
    advice: what would need less memory of the card (`magi_world.memory`).
    """

    spec: WorldSpec
    config: MagiConfig
    dit: DiT
    vae: VAE
    text: TextEncoder
    starts: Tensor | None = None
    heads: nn.Module | None = None
    tile: TileConfig | None = None
    make_cache: MakeCache = KeyValueCache
    spread: Spread = map
    processes: int = 1
    null_front: Tensor | None = None
    beside: SideStream | None = None
    advice: str = ""

    @property
    def device(self) -> torch.device:
        """Where the work is done."""
        return self.dit.final_linear.linear.weight.device

    @cached_property
    def interpreter(self) -> Interpreter:
        """What reads texts for these worlds."""
        return Interpreter(self.spec, self.text)


class SideStream:
    """A second stream of a card. What it makes may be used once its event was waited for."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)

    def run(self, work: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, torch.cuda.Event]:
        """``work(x)``, begun once x is there, and the event of its end."""
        self.stream.wait_stream(torch.cuda.current_stream(x.device))
        x.record_stream(self.stream)  # its memory is not given away before
        with torch.cuda.stream(self.stream):
            out = work(x)
            return out, self.stream.record_event()


def decode_chunk(parts: WorldParts, chunk: Chunk) -> Chunk:
    """The same chunk with its pixels."""
    if parts.beside is None:
        return chunk.with_pixels(decode_latents(parts, chunk.latents))
    pixels, done = parts.beside.run(partial(decode_latents, parts), chunk.latents)
    return chunk.with_pixels(pixels, done)


def decode_latents(parts: WorldParts, latents: Tensor) -> Tensor:
    """Scaled latents (n, C, t, h, l) -> uint8 frames (n, T, H, W, 3)."""
    unscaled = parts.vae.unscale(latents)
    if parts.tile is None:
        video = parts.vae.decode(unscaled, first_frame_only=False)
    else:
        video = decode_tiled(
            parts.vae, unscaled, parts.tile, first_frame_only=False, spread=parts.spread
        )
    return video_to_frames(video)


def check_finite(latents: Tensor, parts: WorldParts) -> None:
    """Raise ValueError, naming the weight to blame, where the transformer gave NaN or infinity."""
    if torch.isfinite(latents).all():
        return
    name = find_nan(parts.dit) or find_nan(parts.vae)
    if name:
        raise ValueError(f"the weights of {parts.spec.name} hold NaN or infinity: {name}")
    raise ValueError(f"{parts.spec.name} computed NaN or infinity from finite weights")
