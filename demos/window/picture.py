"""Frames on the screen: as large as they fit, and smooth; or every pixel of them a clean square.

Shapes: H, W pixels of the world.
"""

from __future__ import annotations

import numpy as np
import pygame
from PIL import Image


def fitted(size: tuple[int, int], area: pygame.Rect, whole: bool = False) -> pygame.Rect:
    """The largest rectangle of the shape (width, height) in the middle of ``area``.

    ``whole``: enlarged by a whole factor, where that is at least 1.
    """
    width, height = size
    factor = min(area.width / width, area.height / height)
    if whole and factor >= 1:
        factor = int(factor)
    rect = pygame.Rect(0, 0, max(1, round(width * factor)), max(1, round(height * factor)))
    rect.center = area.center
    return rect


def scaled(frame: np.ndarray, size: tuple[int, int], smooth: bool = True) -> pygame.Surface:
    """A frame (H, W, 3) uint8 as a picture of ``size`` = (width, height).

    ``smooth``: by Lanczos; else its pixels are repeated.
    """
    how = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    picture = Image.fromarray(frame).resize(size, how)
    return pygame.image.frombuffer(picture.tobytes(), size, "RGB")


class Picture:
    """A frame that is scaled once and drawn as often as needed."""

    def __init__(self) -> None:
        """Nothing scaled yet."""
        self._key: tuple[int, tuple[int, int], bool] | None = None
        self._frame: np.ndarray | None = None
        self._surface: pygame.Surface | None = None

    def draw(
        self, surface: pygame.Surface, frame: np.ndarray, rect: pygame.Rect, smooth: bool
    ) -> None:
        """Draw the frame into ``rect``."""
        key = (frame.__array_interface__["data"][0], rect.size, smooth)
        if self._surface is None or key != self._key:
            # The frame is kept so that its address cannot be given to another one.
            self._key, self._frame = key, frame
            self._surface = scaled(frame, rect.size, smooth)
        surface.blit(self._surface, rect)
