"""Frames on the screen: as large as they fit, every pixel of the world a clean square.

Shapes: H, W pixels of the world.
"""

from __future__ import annotations

import numpy as np
import pygame


def fitted(size: tuple[int, int], area: pygame.Rect) -> pygame.Rect:
    """The largest rectangle of the shape (width, height) in the middle of ``area``."""
    width, height = size
    factor = min(area.width / width, area.height / height)
    # Whole factors give squares of equal size; take one if it costs at most a tenth.
    if factor >= 1 and int(factor) >= 0.9 * factor:
        factor = int(factor)
    rect = pygame.Rect(0, 0, max(1, round(width * factor)), max(1, round(height * factor)))
    rect.center = area.center
    return rect


def scaled(frame: np.ndarray, size: tuple[int, int], smooth: bool = False) -> pygame.Surface:
    """A frame (H, W, 3) uint8 as a picture of ``size`` = (width, height)."""
    picture = pygame.image.frombuffer(frame.tobytes(), (frame.shape[1], frame.shape[0]), "RGB")
    if smooth or size[0] < picture.get_width():
        return pygame.transform.smoothscale(picture, size)
    # Enlarged by a whole factor first, so that only the edges of the squares are blended.
    factor = -(-size[0] // picture.get_width())
    large = pygame.transform.scale_by(picture, factor)
    return large if large.get_size() == size else pygame.transform.smoothscale(large, size)


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
