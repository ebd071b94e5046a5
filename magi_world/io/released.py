"""The released MAGI-1 family: its presets, and where its parts lie below a folder.

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
from dataclasses import dataclass, replace
from pathlib import Path

from magi_world.config import DiTConfig, MagiConfig, SamplerConfig, require
from magi_world.io.safetensors_io import TensorInfo, inspect_checkpoint

_DIT_4_5B = DiTConfig(layers=34, hidden=3072, ffn=12288, heads=24, kv_groups=8, head_dim=128)
_DIT_24B = DiTConfig(
    layers=48,
    hidden=6144,
    ffn=16384,
    heads=48,
    kv_groups=8,
    head_dim=128,
    duplicate_channels=True,
    gated=True,
    rescale=0.1,
)
_DISTILLED = SamplerConfig(num_steps=16, passes=1, distilled=True)


def _family(size: str, dit: DiTConfig, base_steps: int) -> dict[str, MagiConfig]:
    variants = {
        "base": (dit, SamplerConfig(num_steps=base_steps)),
        "distill": (dit, _DISTILLED),
        "distill-fp8": (replace(dit, fp8=True), _DISTILLED),
    }
    return {
        (name := f"magi-1-{size}-{variant}"): MagiConfig(name, sizes, sampler=sampler)
        for variant, (sizes, sampler) in variants.items()
    }


PRESETS: dict[str, MagiConfig] = {
    **_family("4.5b", _DIT_4_5B, base_steps=64),
    **_family("24b", _DIT_24B, base_steps=32),
}


def preset(name: str) -> MagiConfig:
    """One of :data:`PRESETS`.

    Raises:
        ValueError: unknown name, with those there are.
    """
    require(name in PRESETS, f"preset is {name!r}; it must be one of {', '.join(PRESETS)}")
    return PRESETS[name]


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
