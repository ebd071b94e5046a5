"""A tiny world with heads as a package, for processes that load it themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from magi_world.io.package import write_package
from tests.envs.worlds import heads
from tests.tiny import tiny_parts, tiny_text


def write_world(folder: Path) -> Path:
    """Two layers, random heads; some episodes end by themselves."""
    text = tiny_text(folder / "text")
    parts = replace(tiny_parts(num_steps=2), text=text, heads=heads(-1.0))
    write_package(folder, parts, torch.float32)
    return folder
