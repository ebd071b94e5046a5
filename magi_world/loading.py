"""From a name to a running world: shipped and installed packages, and the released weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

import torch

from magi_world.model.attention import Backend
from magi_world.package import RECORD, read_package
from magi_world.parts import WorldParts
from magi_world.released import PRESETS, preset
from magi_world.world import World

SHIPPED = Path(__file__).parent / "worlds"
INSTALLED = Path.home() / ".magi-world" / "worlds"
Dtype = Literal["float32", "bfloat16"]


def list_worlds() -> list[str]:
    """Names of the worlds that `load_world` finds without a path: shipped ones first.

    Own worlds are installed by copying their folder to ~/.magi-world/worlds.
    """
    return list(world_folders())


def world_folders() -> dict[str, Path]:
    """Name -> folder of every shipped and installed world."""
    found: dict[str, Path] = {}
    for root in (SHIPPED, INSTALLED):
        for record in sorted(root.glob(f"*/{RECORD}")):
            found.setdefault(record.parent.name, record.parent)
    return found


def load_world(
    name: str | Path,
    num_worlds: int = 1,
    device: str | torch.device | None = None,
    dtype: Dtype | None = None,
    num_steps: int | None = None,
    window_size: int | None = None,
    frame_size: tuple[int, int] | None = None,
    weights: str | Path | None = None,
    attention: Backend = "sdpa",
    noise_scale: float = 1.0,
) -> World:
    """A world, ready for `World.reset`.

    Args:
        name: a name of `list_worlds`, the folder of a world package, or one of the released
            models ("magi-1-4.5b-distill", ...), which needs ``weights``.
        num_worlds: worlds in the batch.
        device: None is the GPU where there is one, else the CPU.
        dtype: "float32" or "bfloat16"; None is what the world was made for.
        num_steps, window_size, frame_size: None is what the world was made for. Interactive use of
            the released weights wants ``window_size=1``.
        weights: folder of the released weights, as it was downloaded.
        attention: "sdpa", "flash" or "reference".
        noise_scale: standard deviation of the noise that chunks start from.

    Raises:
        ValueError: an unknown name, or options that do not fit together.
        FileNotFoundError: a file is missing.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if str(name) in PRESETS:
        if weights is None:
            raise ValueError(f"{name} needs weights=DIR, the folder with the released weights")
        parts = _released(str(name), Path(weights), device, dtype, num_steps, window_size, frame_size)
    elif weights is not None:
        raise ValueError(f"weights is for the released models ({', '.join(PRESETS)}), not {name}")
    else:
        folder = find_package(name)
        parts = read_package(folder, device, dtype, num_steps, window_size, frame_size)
    return World(parts, num_worlds, attention, noise_scale)


def find_package(name: str | Path) -> Path:
    """The folder of a world package, by name or path.

    Raises:
        ValueError: there is no such world; the message lists those there are.
    """
    folders = world_folders()
    if str(name) in folders:
        return folders[str(name)]
    if (Path(name) / RECORD).is_file():
        return Path(name)
    known = ", ".join([*folders, *PRESETS])
    raise ValueError(
        f"there is no world {str(name)!r}; it must be one of {known}, or a folder with {RECORD}"
    )
