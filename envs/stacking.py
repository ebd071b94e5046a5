"""The last k frames as one picture with 3 k channels.

Shapes: B worlds, T video frames, H, W pixels, k frames in a picture, n frames kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Space
from torch import Tensor

from magi_world.envs.config import is_int

Batch = np.ndarray | Tensor
MOST = 1000  # a picture of more frames, or from further apart, is a mistake


@dataclass(frozen=True)
class Stacking:
    """frames: k.    every: take only every so many-th frame, the newest included."""

    frames: int = 4
    every: int = 1

    def __post_init__(self) -> None:
        for name in ("frames", "every"):
            value = getattr(self, name)
            if not is_int(value) or not 1 <= value <= MOST:
                raise ValueError(f"{name} is {value!r}; it must be a whole number from 1 to {MOST}")

    @property
    def kept(self) -> int:
        """n, how far back the picture reaches."""
        return (self.frames - 1) * self.every + 1

    def space(self, space: Space[Any]) -> Box:
        """Space of the pictures, from that of chunks (T, H, W, 3) or frames (H, W, 3).

        Raises:
            ValueError: observations are something else.
        """
        shape = space.shape or ()
        if not isinstance(space, Box) or space.dtype != np.uint8 or len(shape) not in (3, 4):
            raise ValueError(
                f"the observations are {space}; pictures are made of observation='chunk' or 'frame'"
            )
        height, width, channels = shape[-3:]
        return Box(0, 255, (height, width, channels * self.frames), np.uint8)

    def begin(self, seen: Batch) -> Batch:
        """The frames to keep (B, n, H, W, 3) after a reset; the first stands for earlier ones."""
        xp: Any = torch if isinstance(seen, Tensor) else np
        clip = as_clip(seen)
        missing = max(0, self.kept - clip.shape[1])
        return xp.concatenate([clip[:, :1]] * missing + [clip], 1)[:, -self.kept :]

    def push(self, kept: Batch, seen: Batch) -> Batch:
        """The frames to keep after a step."""
        xp: Any = torch if isinstance(seen, Tensor) else np
        return xp.concatenate([kept, as_clip(seen)], 1)[:, -self.kept :]

    def picture(self, kept: Batch) -> Batch:
        """(B, n, H, W, 3) -> (B, H, W, 3 k), oldest first, as a new array."""
        xp: Any = torch if isinstance(kept, Tensor) else np
        chosen = kept[:, :: self.every]
        batch, _, height, width, _ = chosen.shape
        moved = xp.moveaxis(chosen, 1, 3).reshape(batch, height, width, -1)
        return moved.clone() if isinstance(moved, Tensor) else np.array(moved)


def as_clip(seen: Any) -> Any:
    """(B, T, H, W, 3) of observations (B, T, H, W, 3) or (B, H, W, 3)."""
    return seen if seen.ndim == 5 else seen[:, None]
