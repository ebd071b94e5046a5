"""The parts of a world that never change."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from magi_world.config import MagiConfig
from magi_world.model.dit import DiT
from magi_world.model.text import TextEncoder
from magi_world.model.tiling import TileConfig
from magi_world.model.vae import VAE
from magi_world.spec import WorldSpec


@dataclass(frozen=True, eq=False)
class WorldParts:
    """What all worlds made from one package share.

    starts: (K, C, t, h, l) scaled latents of real start videos, or None.
    heads: optional predictor of reward and end on latents.
    tile: how frames larger than the VAE was trained on are encoded and decoded; None = at once.
    """

    spec: WorldSpec
    config: MagiConfig
    dit: DiT
    vae: VAE
    text: TextEncoder
    starts: Tensor | None = None
    heads: nn.Module | None = None
    tile: TileConfig | None = None
