"""The parts of a world that never change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from magi_world.config import DiTConfig, MagiConfig
from magi_world.io.safetensors_io import find_nan
from magi_world.language import Interpreter
from magi_world.model.dit import DiT
from magi_world.model.text import TextEncoder
from magi_world.model.tiling import Spread, TileConfig
from magi_world.model.vae import VAE
from magi_world.sampling.kv_cache import KeyValueCache, MakeCache
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

    @property
    def heads_see(self) -> int:
        """How many chunks the predictors look at: 1, or 2 with the one before in front."""
        return int(getattr(self.heads, "chunks", 1))

    @cached_property
    def interpreter(self) -> Interpreter:
        """What reads texts for these worlds."""
        return Interpreter(self.spec, self.text)

    def not_finite(self) -> ValueError:
        """The error of a chunk that holds NaN or infinity."""
        if weight := find_nan(self.dit) or find_nan(self.vae):
            return ValueError(f"the weights of {self.spec.name} hold NaN or infinity: {weight}")
        return ValueError(f"{self.spec.name} computed NaN or infinity from finite weights")


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
