"""Pictures of what a world does: rows of frames as one PNG.

Legend: R rows, F frames in a row, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def save_strip(rows: Sequence[Tensor], path: Path, scale: int = 2, gap: int = 2) -> Path:
    """Write uint8 rows (F, H, W, 3) under each other, ``scale`` times enlarged.

    Raises:
        ValueError: rows of different shapes, or none.
    """
    if len({tuple(r.shape) for r in rows}) != 1:
        raise ValueError(f"a strip needs rows of one shape, not {[tuple(r.shape) for r in rows]}")
    height = rows[0].shape[1]
    lines: list[Tensor] = []
    for row in rows:
        line = row.permute(1, 0, 2, 3).reshape(height, -1, 3)
        lines += [line, torch.full((gap, line.shape[1], 3), 255, dtype=torch.uint8)]
    image = Image.fromarray(np.ascontiguousarray(torch.cat(lines[:-1]).numpy()))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(
        path, optimize=True
    )
    return path


def reconstruction_rows(real: Tensor, made: Tensor) -> list[Tensor]:
    """Real and reconstructed chunks (n, T, H, W, 3) in alternating rows."""
    return [row for pair in zip(real, made, strict=True) for row in pair]


def sampled(video: Tensor, count: int) -> Tensor:
    """``count`` frames (count, H, W, 3) spread over (F, H, W, 3)."""
    return video[torch.linspace(0, len(video) - 1, count).round().long()]
