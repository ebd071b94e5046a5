"""The parts of a world that never change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

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

    @cached_property
    def interpreter(self) -> Interpreter:
        """What reads texts for these worlds."""
        return Interpreter(self.spec, self.text)


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
