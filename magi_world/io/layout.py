"""Where the parts of a released checkpoint lie below a folder, and how each is opened.

Looked for, at any depth that a download may have (``DIR/inference_weight`` as well as
``DIR/ckpt/magi/4.5B_base/inference_weight``):

    inference_weight[.fp8][.distill]/    the transformer
    config.json of a ViTVAE + weights    the autoencoder
    config.json of a t5 + weights        the text encoder
    special_tokens.npz                   features in front of captions
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from magi_world.config import DiTConfig, MagiConfig, VAEConfig, require
from magi_world.io.weights import Progress, TensorInfo, inspect_checkpoint, load_into
from magi_world.model.dit import DiT, parameter_dtype
from magi_world.model.offload import offload as leave_when_idle
from magi_world.model.t5 import T5TextEncoder
from magi_world.model.text import (
    CaptionCache,
    EnhancedEncoder,
    PromptTokens,
    SavedCaptions,
    SpecialTokenEncoder,
    SpecialTokens,
    TextEncoder,
)
from magi_world.model.vae import VAE
from magi_world.world.parts import MakeDiT, whole_dit

SPECIAL_TOKENS = "special_tokens.npz"
_DIT_FOLDER = re.compile(r"inference_weight(\.fp8)?(\.distill)?")
_LAYER = re.compile(r"videodit_blocks\.layers\.(\d+)\.")
# models--sand-ai--MAGI-1/snapshots/<hash>/ckpt/magi/4.5B_base/inference_weight is six deep.
_MAX_DEPTH = 7


@dataclass(frozen=True)
class DitFolder:
    """One transformer on disk; fp8 and distilled are what the folder's name says."""

    path: Path
    fp8: bool
    distilled: bool


@dataclass(frozen=True)
class CheckpointLayout:
    """What :func:`find_layout` found below ``root``; None and () where there is nothing."""

    root: Path
    dits: tuple[DitFolder, ...]
    vae: Path | None
    t5: Path | None
    special_tokens: Path | None

    def dit(self, config: MagiConfig) -> Path:
        """The folder of the transformer that ``config`` describes.

        Raises:
            FileNotFoundError: there is none, with what was looked for and what is there.
            WeightsError: the only folder of the right name is damaged.
        """
        name = dit_folder_name(config)
        same = [d.path for d in self.dits if d.path.name == name]
        found = []
        for path in same:
            sizes = dit_sizes(inspect_checkpoint(path))
            if sizes == (config.dit.layers, config.dit.hidden):
                return path
            found.append(f"{path} ({_describe(sizes)})")
        found += [str(d.path) for d in self.dits if d.path.name != name]
        wanted = _describe((config.dit.layers, config.dit.hidden))
        raise FileNotFoundError(
            f"{config.name}: no folder {name} with {wanted} below {self.root}; "
            + (f"there is {', '.join(found)}" if found else "there is no inference_weight at all")
        )

    def part(self, name: str) -> Path:
        """The path of ``"vae"``, ``"t5"`` or ``"special_tokens"``.

        Raises:
            FileNotFoundError: it is not there, with what was looked for.
        """
        path: Path | None = getattr(self, name)
        if path is None:
            raise FileNotFoundError(f"below {self.root} there is no {LOOKED_FOR[name]}")
        return path


LOOKED_FOR = {
    "vae": "VAE: a folder with config.json (_class_name ViTVAE) and "
    "diffusion_pytorch_model.safetensors",
    "t5": "T5: a folder such as t5-v1_1-xxl with config.json (model_type t5) and weights",
    "special_tokens": f"{SPECIAL_TOKENS} (it comes with MAGI-1's code, in example/assets)",
}


def dit_folder_name(config: MagiConfig) -> str:
    """``inference_weight[.fp8][.distill]``."""
    fp8, distill = config.dit.fp8, config.sampler.distilled
    return f"inference_weight{'.fp8' if fp8 else ''}{'.distill' if distill else ''}"


def dit_sizes(stored: dict[str, TensorInfo]) -> tuple[int, int]:
    """(layers, hidden size) of a transformer, from its file headers; 0 where they do not say."""
    layers = {int(m[1]) for name in stored if (m := _LAYER.match(name))}
    first = stored.get("x_embedder.weight")
    return len(layers), first.shape[0] if first and first.shape else 0


def _describe(sizes: tuple[int, int]) -> str:
    return f"{sizes[0]} layers of width {sizes[1]}"


def find_layout(root: str | Path) -> CheckpointLayout:
    """Look through a folder of the user's, by names and small json files only.

    Args:
        root: the folder that holds everything, or one of the parts itself. Of several
            autoencoders or text encoders, the one nearest to it is taken.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"no folder of weights at {root}")
    dits: list[DitFolder] = []
    parts: dict[str, Path] = {}
    for folder, files in _walk(root):
        if match := _DIT_FOLDER.fullmatch(folder.name):
            dits.append(DitFolder(folder, match[1] is not None, match[2] is not None))
        elif "config.json" in files:
            kind = _kind(folder / "config.json")
            if kind:
                parts.setdefault(kind, folder)
        if SPECIAL_TOKENS in files:
            parts.setdefault("special_tokens", folder / SPECIAL_TOKENS)
    return CheckpointLayout(
        root, tuple(dits), parts.get("vae"), parts.get("t5"), parts.get("special_tokens")
    )


def _walk(root: Path) -> list[tuple[Path, list[str]]]:
    """Folders and their files, nearest to the root first, in an order that does not vary."""
    found = []
    for path, folders, files in os.walk(root.absolute(), followlinks=True):
        depth = len(Path(path).relative_to(root.absolute()).parts)
        folders[:] = [] if depth == _MAX_DEPTH else [f for f in folders if f[0] != "."]
        found.append((depth, root / Path(path).relative_to(root.absolute()), files))
    return [(path, files) for _, path, files in sorted(found, key=lambda f: (f[0], f[1]))]


def _kind(config: Path) -> str | None:
    try:
        values = json.loads(config.read_text())
    except (OSError, ValueError):
        return None  # somebody else's file
    if not isinstance(values, dict):
        return None
    if values.get("_class_name") == "ViTVAE":
        return "vae"
    return "t5" if values.get("model_type") == "t5" else None


def open_dit(
    source: str | Path,
    config: DiTConfig,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    progress: bool | Progress = False,
    make_dit: MakeDiT = whole_dit,
) -> DiT:
    """Load a released transformer; each parameter in its own precision (`parameter_dtype`).

    Args:
        source: its folder, file or index.
        config: its sizes.
        device: where it goes.
        dtype: precision of the stream, float32 or bfloat16.
        progress: True shows a bar; or a function of (bytes done, bytes in all).
        make_dit: of a process that has a part of the transformer only.

    Raises:
        FileNotFoundError, WeightsError: see :func:`magi_world.io.weights.load_into`.
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
    progress: bool | Progress = False,
    offload: bool = False,
) -> VAE:
    """Load a released autoencoder: ``config.json`` with its ``ddconfig``, and its weights.

    Args:
        folder: where both lie.
        device: where it goes.
        dtype: precision that it is held in and computes in.
        progress: True shows a bar; or a function of (bytes done, bytes in all).
        offload: encoder and decoder are on ``device`` only while they run.

    Raises:
        FileNotFoundError, WeightsError: see :func:`magi_world.io.weights.load_into`.
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
