"""What a world needs of a card's memory, before anything is allocated, and what would need less.

Weights and history are counted exactly; what a forward and a decoded tile need on the way is
estimated from the tensors that are alive at the worst moment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from textwrap import indent

import torch
from tabulate import tabulate
from torch import nn

from magi_world.config import DiTConfig, MagiConfig, VAEConfig
from magi_world.model.dit import DiT, parameter_dtype
from magi_world.model.tiling import TileConfig
from magi_world.model.vae import VAE
from magi_world.sampling.denoise import extra_chunks

GIB = 2**30


class CardFullError(ValueError):
    """A card has too little memory; the message says what would need less."""


def card_full(error: torch.OutOfMemoryError, name: str, advice: str) -> CardFullError:
    """torch's own error as a clear one of the world ``name``."""
    first = str(error).split("\n")[0].split(". ")
    wanted = next((s for s in first if s.startswith("Tried")), first[0]).rstrip(".")
    return CardFullError(
        f"the card has too little memory for {name} ({wanted}); "
        f"{advice or 'fewer worlds would need less'}"
    )


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on a card. weights, history: exactly.    work: at the worst moment, about.

    text: the text encoder. Offloaded, it is there before a step and not during one.
    """

    transformer: int
    autoencoder: int
    text: int
    history: int
    work: int
    offload: str | None = None

    @property
    def kept(self) -> int:
        """What is there all the time."""
        resting = {"text": self.text, "all": self.text + self.autoencoder}
        whole = self.transformer + self.autoencoder + self.text + self.history
        return whole - resting.get(self.offload or "", 0)

    @property
    def total(self) -> int:
        """The most that is there at one time."""
        guests = self.work
        if self.offload == "all":
            guests = max(guests, self.autoencoder)
        return self.kept + (max(guests, self.text) if self.offload else guests)

    def __str__(self) -> str:
        away = {"text": ("text encoder",), "all": ("text encoder", "autoencoder")}
        rows = [
            ("transformer", self.transformer),
            ("autoencoder", self.autoencoder),
            ("text encoder", self.text),
            ("history", self.history),
            ("work, about", self.work),
        ]
        out = [
            (name, size / GIB, "GiB")
            + (("while it is used",) if name in away.get(self.offload or "", ()) else ())
            for name, size in rows
            if size
        ]
        out.append(("at most, about", self.total / GIB, "GiB"))
        return indent(tabulate(out, tablefmt="plain", floatfmt=".2f"), "  ")


def plan_memory(
    config: MagiConfig,
    num_worlds: int = 1,
    text: int = 0,
    tile: TileConfig | None = None,
    offload: str | None = None,
    near: int | None = None,
    proj: torch.dtype = torch.bfloat16,
) -> MemoryPlan:
    """The plan of a model on one card.

    Args:
        text: bytes of the text encoder there.
        tile: how frames are decoded; None = at once.
        offload: "text" or "all", see `magi_world.loading.LoadOptions`.
        near: chunks of the history that lie on the card; None is all of them.
        proj: what linear_proj is stored in.
    """
    dtype = getattr(torch, config.dtype)
    history = config.sampler.history if near is None else min(near, config.sampler.history)
    return MemoryPlan(
        transformer=_transformer(config.dit, dtype, proj),
        autoencoder=_autoencoder(config.vae, dtype),
        text=text,
        history=cache_bytes(config, num_worlds, history, dtype),
        work=max(_forward(config, num_worlds, dtype), _decode(config, num_worlds, tile, dtype)),
        offload=offload,
    )


def _transformer(config: DiTConfig, dtype: torch.dtype, proj: torch.dtype) -> int:
    def stored(name: str, parameter: torch.dtype) -> torch.dtype:
        return proj if "linear_proj." in name and parameter == torch.float32 else parameter

    with torch.device("meta"):
        state = DiT(config).state_dict()
    return sum(
        x.numel() * parameter_dtype(name, stored(name, x.dtype), dtype).itemsize
        for name, x in state.items()
    )


def _autoencoder(config: VAEConfig, dtype: torch.dtype) -> int:
    with torch.device("meta"):
        vae: nn.Module = VAE(config)
    return sum(x.numel() for x in vae.parameters()) * dtype.itemsize


def _chunk_tokens(config: MagiConfig) -> int:
    return config.sampler.chunk_width * math.prod(s // config.dit.patch for s in config.latent_size)


def _in_flight(config: MagiConfig) -> int:
    return config.sampler.window_size + extra_chunks(config.sampler)


def cache_bytes(config: MagiConfig, worlds: int, chunks: int, dtype: torch.dtype) -> int:
    """The keys and values of ``chunks`` clean chunks, and of those in flight."""
    slots = chunks + _in_flight(config)
    row = config.dit.layers * config.dit.kv_groups * config.dit.head_dim
    return 2 * worlds * slots * _chunk_tokens(config) * row * dtype.itemsize


def _forward(config: MagiConfig, worlds: int, dtype: torch.dtype) -> int:
    """A block's feed-forward: stream, branch and sums in float32, and both sides of the GELU."""
    dit = config.dit
    wide = dit.ffn * (3 if dit.gated else 2) * dtype.itemsize + (4 * dit.ffn if dit.fp8 else 0)
    token = dit.hidden * (2 * dtype.itemsize + 3 * 4) + wide
    return worlds * _in_flight(config) * _chunk_tokens(config) * token


def _decode(config: MagiConfig, worlds: int, tile: TileConfig | None, dtype: torch.dtype) -> int:
    """The largest tile's activations, and the whole video in two precisions."""
    vae, (height, width) = config.vae, config.frame_size
    frames, video = config.frames_per_chunk, worlds * config.frames_per_chunk * height * width * 3
    if tile is not None:
        frames, height, width = (
            min(frames, tile.length), min(height, tile.height), min(width, tile.width)
        )  # fmt: skip
    tokens = frames * height * width // (vae.patch_length * vae.patch_size**2)
    token = int(vae.width * (6 + 2 * vae.mlp_ratio)) * dtype.itemsize
    return worlds * tokens * token + video * (dtype.itemsize + 4)


def what_needs_less(
    released: bool, num_worlds: int, offload: str | None, text_there: bool, fp8: bool, window: int
) -> str:
    """Options of `load_world` that have not been taken yet, as a sentence."""
    options = []
    if released and text_there and offload is None:
        options.append("offload='text' (or captions=FILE, text_device='cpu')")
    if released and offload != "all":
        options.append("offload='all'")
    if num_worlds > 1:
        options.append(f"num_worlds below {num_worlds}")
    if window > 1:
        options.append("window_size=1")
    if released and not fp8:
        options.append("the fp8 weights")
    options += ["a smaller frame_size", "a shorter history, or history_place='host'"]
    return "what would need less: " + ", ".join(options)


def check_card(plan: MemoryPlan, card: int, name: str, advice: str) -> None:
    """Refuse before anything is loaded what cannot fit.

    Raises:
        CardFullError: weights and history alone are more than the ``card`` bytes there are.
    """
    if plan.kept > card:
        raise CardFullError(
            f"{name} needs {plan.kept / GIB:.1f} GiB for weights and history, and the card has "
            f"{card / GIB:.1f} GiB; {advice}\n{plan}"
        )
