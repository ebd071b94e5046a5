"""The released weights, opened part by part and as a world, and what they will need of a card."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from magi_world.config import DiTConfig, MagiConfig, VAEConfig, require
from magi_world.io.package import DTYPES
from magi_world.io.released import CheckpointLayout, find_layout
from magi_world.io.safetensors_io import inspect_checkpoint, load_into
from magi_world.memory import check_card, plan_memory, what_needs_less
from magi_world.model.dit import DiT, parameter_dtype
from magi_world.model.offload import offload as leave_when_idle
from magi_world.model.t5 import DECODER_PREFIXES, T5TextEncoder
from magi_world.model.text import (
    CaptionCache,
    EnhancedEncoder,
    PromptTokens,
    SavedCaptions,
    SpecialTokenEncoder,
    SpecialTokens,
    TextEncoder,
)
from magi_world.model.tiling import TileConfig
from magi_world.model.vae import VAE
from magi_world.sampling.long_history import NEAR
from magi_world.world.parts import MakeDiT, WorldParts, whole_dit
from magi_world.world.spec import WorldSpec

Dtype = Literal["float32", "bfloat16"]
Offload = Literal["text", "all"]


@dataclass(frozen=True)
class Reading:
    """How the released weights are read; most of it as in `LoadOptions`.

    A process that only has a part of the transformer says so with ``make_dit``, and that it reads
    no text with ``with_text``.
    """

    captions: str | Path | None = None
    text_device: str | torch.device = "cpu"
    text_dtype: Dtype | None = None
    tokens: PromptTokens = PromptTokens()  # noqa: RUF009 - it is frozen
    enhance: Callable[[str], str] | None = None
    offload: Offload | None = None
    make_dit: MakeDiT = whole_dit
    with_text: bool = True


def say_plan(
    config: MagiConfig,
    weights: str | Path,
    num_worlds: int,
    device: torch.device,
    reading: Reading,
    far_history: bool = False,
) -> str:
    """Print what the released model will need, before it takes anything; what would need less.

    ``far_history``: only the newest chunks lie on the card.

    Raises:
        CardFullError: more than the card has.
    """
    layout = find_layout(weights)
    stored = inspect_checkpoint(layout.dit(config))
    float32 = any("linear_proj." in n and i.dtype == torch.float32 for n, i in stored.items())
    text_here = reading.captions is None and torch.device(reading.text_device) == device
    # A bfloat16 stream holds linear_proj in what it is stored in (`parameter_dtype`).
    plan = plan_memory(
        config,
        num_worlds,
        text=t5_bytes(layout.part("t5"), reading, config) if text_here else 0,
        tile=TileConfig(length=config.fps // 2),
        offload=reading.offload,
        near=NEAR if far_history else None,
        proj=torch.float32 if float32 else torch.bfloat16,
    )
    print(f"memory of {config.name} on {device}:\n{plan}", file=sys.stderr, flush=True)
    advice = what_needs_less(
        True, num_worlds, reading.offload, text_here, config.dit.fp8, config.sampler.window_size
    )
    if device.type == "cuda":
        check_card(plan, torch.cuda.mem_get_info(device)[1], config.name, advice)
    return advice


def t5_bytes(folder: Path, reading: Reading, config: MagiConfig) -> int:
    """What T5's encoder takes."""
    size = DTYPES[reading.text_dtype or config.dtype].itemsize
    return sum(
        math.prod(info.shape) * size
        for name, info in inspect_checkpoint(folder).items()
        if not name.startswith(DECODER_PREFIXES) and name != "encoder.embed_tokens.weight"
    )


def read_released(
    config: MagiConfig,
    weights: str | Path,
    device: torch.device,
    reading: Reading = Reading(),
) -> WorldParts:
    """The released model of ``config`` from the folder ``weights``; a bar shows the progress.

    Raises:
        FileNotFoundError: a part is missing; the message says what was looked for.
        ValueError: a file that does not fit the configuration.
    """
    layout, dtype = find_layout(weights), DTYPES[config.dtype]
    source = layout.dit(config)
    told, make_dit = reading.with_text, reading.make_dit
    away = reading.offload
    vae = open_vae(layout.part("vae"), device, dtype, told, offload=away == "all")
    text: TextEncoder = NoText()
    if reading.with_text:
        text = open_text(
            layout,
            config.dit.caption_length,
            reading.text_device,
            DTYPES[reading.text_dtype] if reading.text_dtype else dtype,
            saved=reading.captions,
            progress=True,
            tokens=reading.tokens,
            enhance=reading.enhance,
            offload=away is not None and torch.device(reading.text_device).type == "cuda",
        )
    front = None
    if reading.tokens.negative:
        front = SpecialTokens.load(layout.part("special_tokens")).unwanted
    dit = open_dit(source, config.dit, device, dtype, progress=told, make_dit=make_dit)
    tensors = inspect_checkpoint(source)
    listing = sorted((n, str(i.dtype), i.shape, i.nbytes) for n, i in tensors.items())
    spec = WorldSpec(
        name=config.name,
        frame_size=config.frame_size,
        frames_per_chunk=config.frames_per_chunk,
        fps=config.fps,
        description="MAGI-1, released weights (arXiv 2505.13211)",
        licence="Apache-2.0",
        fingerprint=hashlib.sha256(repr((config.name, listing)).encode()).hexdigest()[:16],
    )
    # The released model encodes and decodes in tiles of 256 x 256 pixels and half a second.
    tile = TileConfig(length=config.fps // 2)
    return WorldParts(
        spec, replace(config, vae=vae.config), dit, vae, text, tile=tile, null_front=front
    )


class NoText:
    """The text encoder of a process that is never asked for text."""

    channels = 0

    def encode(self, prompt: str) -> torch.Tensor:
        """Raises:
        RuntimeError: always.
        """
        raise RuntimeError(f"this process reads no text, and was asked for {prompt!r}")


def open_dit(
    source: str | Path,
    config: DiTConfig,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    progress: bool = False,
    make_dit: MakeDiT = whole_dit,
) -> DiT:
    """Load a released transformer; each parameter in its own precision (`parameter_dtype`).

    Args:
        source: its folder, file or index.
        config: its sizes.
        device: where it goes.
        dtype: precision of the stream, float32 or bfloat16.
        progress: True shows a bar.
        make_dit: of a process that has a part of the transformer only.

    Raises:
        FileNotFoundError, WeightsError: see :func:`magi_world.io.safetensors_io.load_into`.
        ValueError: another dtype.
    """
    require(
        dtype in (torch.float32, torch.bfloat16),
        f"dtype is {dtype}; it must be torch.float32 or torch.bfloat16",
    )
    with torch.device("meta"):
        dit, foreign = make_dit(config)
    load_into(
        dit, source, device, lambda n, i: parameter_dtype(n, i.dtype, dtype), progress, foreign
    )
    return dit.eval().requires_grad_(False)


def open_vae(
    folder: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    progress: bool = False,
    offload: bool = False,
) -> VAE:
    """Load a released autoencoder: ``config.json`` with its ``ddconfig``, and its weights.

    Args:
        folder: where both lie.
        device: where it goes.
        dtype: precision that it is held in and computes in.
        progress: True shows a bar.
        offload: encoder and decoder are on ``device`` only while they run.

    Raises:
        FileNotFoundError, WeightsError: see :func:`magi_world.io.safetensors_io.load_into`.
        ValueError: the configuration is not one of a ViTVAE that this package knows.
    """
    config = read_vae_config(folder)
    with torch.device("meta"):
        vae = VAE(config)
    load_into(vae, folder, "cpu" if offload else device, lambda name, info: dtype, progress)
    vae.eval().requires_grad_(False)
    if offload:
        for half in (vae.encoder, vae.decoder):
            leave_when_idle(half, torch.device(device))
    return vae


def open_text(
    layout: CheckpointLayout,
    caption_length: int = 800,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    saved: str | Path | None = None,
    progress: bool = False,
    tokens: PromptTokens = PromptTokens(),  # noqa: B008 - it is frozen
    enhance: Callable[[str], str] | None = None,
    offload: bool = False,
) -> TextEncoder:
    """Prompts to captions as MAGI-1 reads them, special features in front, each encoded once.

    Args:
        layout: where T5 and the special tokens are.
        caption_length: rows of a caption at most (``DiTConfig.caption_length``).
        device, dtype: of T5; the features are float32.
        saved: a file of :func:`magi_world.model.text.save_captions`; T5 is then not loaded.
        progress: True shows a bar while T5 is loaded.
        tokens: which special features stand in front.
        enhance: rewrites a prompt before T5 reads it.
        offload: T5 is on ``device`` only while it reads.

    Raises:
        FileNotFoundError, ImportError, ValueError: as the parts raise them.
    """
    special = SpecialTokens.load(layout.part("special_tokens"), device)
    encoder: TextEncoder
    if saved is not None:
        encoder = SavedCaptions(saved, device)
    else:
        folder = layout.part("t5")
        encoder = T5TextEncoder(folder, device, dtype, caption_length, progress, offload)
    if enhance is not None:
        encoder = EnhancedEncoder(encoder, enhance)
    return CaptionCache(SpecialTokenEncoder(encoder, special, caption_length, tokens))


def read_vae_config(folder: str | Path) -> VAEConfig:
    """Sizes of a released autoencoder.

    Raises:
        FileNotFoundError: no config.json in the folder.
        ValueError: it is not of a ViTVAE, or has a size or switch that is not supported.
    """
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"no VAE at {folder}: config.json is looked for there")
    try:
        values: Any = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from error
    require(
        isinstance(values, dict) and values.get("_class_name") == "ViTVAE",
        f"{file} is not of a VAE: its _class_name must be 'ViTVAE'",
    )
    require(isinstance(values.get("ddconfig"), dict), f"{file} has no section ddconfig")
    try:
        return VAEConfig.from_ddconfig(values["ddconfig"])
    except KeyError as error:
        raise ValueError(f"{file}: ddconfig.{error.args[0]} is missing") from error
