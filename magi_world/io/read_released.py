"""The released weights as the parts of a world, and what they will need of a card."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from magi_world.config import MagiConfig
from magi_world.io.checkpoint import inspect_checkpoint
from magi_world.io.layout import find_layout, open_dit, open_text, open_vae
from magi_world.io.package import DTYPES
from magi_world.memory import check_card, plan_memory, what_needs_less
from magi_world.model.t5 import DECODER_PREFIXES
from magi_world.model.text import PromptTokens, SpecialTokens, TextEncoder
from magi_world.model.tiling import TileConfig
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
