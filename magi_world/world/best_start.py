"""The start that shows a world best: for whoever opens it without asking for another.

Shapes: K start videos, C latent channels, t latent frames, h, l latent size, H, W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from magi_world.world.parts import WorldParts, decode_latents

CELLS = 8  # a picture is judged as so many cells across and down
AT_A_TIME = 8  # start videos decoded together


def best_start(parts: WorldParts) -> int | None:
    """Number of the start to open with; None where a world has no start videos.

    It is what the package names (`WorldSpec.best_start`), else the one whose last picture has the
    most to see: a wall right in front of the eyes has not, a wide view with things in it has.
    """
    named = parts.spec.best_start
    if named is not None and named < parts.spec.num_starts:
        return named
    if parts.starts is None or not len(parts.starts):
        return None
    return max(range(len(parts.starts)), key=[variety(f) for f in last_frames(parts)].__getitem__)


@torch.inference_mode()
def last_frames(parts: WorldParts) -> np.ndarray:
    """The picture that each start video ends with, uint8 (K, H, W, 3)."""
    assert parts.starts is not None, "the caller has looked"
    device = parts.device
    width = parts.config.sampler.chunk_width
    ends = parts.starts[:, :, -width:].float().split(AT_A_TIME)
    return np.concatenate([decode_latents(parts, x.to(device))[:, -1].cpu().numpy() for x in ends])


def variety(frame: np.ndarray) -> float:
    """How much a picture (H, W, 3) varies over its area: the spread of its cells' colours."""
    cells = Image.fromarray(frame).resize((CELLS, CELLS), Image.Resampling.BOX)
    return float(np.asarray(cells, np.float64).std((0, 1)).mean())
