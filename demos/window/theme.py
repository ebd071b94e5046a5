"""Colours, letters, panels and frames: what every part of the window is drawn with.

Shapes: H, W pixels of the world.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from typing import Literal

import numpy as np
import pygame
from PIL import Image, ImageFont

Color = tuple[int, int, int]
Size = Literal["tiny", "small", "body", "large", "title"]

BACK: Color = (9, 11, 15)
PANEL: Color = (18, 21, 28)
PANEL_HIGH: Color = (30, 35, 45)
EDGE: Color = (44, 50, 63)
TEXT: Color = (232, 236, 243)
DIM: Color = (158, 167, 183)
FAINT: Color = (116, 125, 142)
ACCENT: Color = (106, 176, 255)
GOOD: Color = (104, 211, 148)
WARN: Color = (244, 194, 96)
BAD: Color = (246, 112, 112)
AGENT: Color = (198, 155, 255)

SIZES: dict[Size, int] = {"tiny": 12, "small": 14, "body": 16, "large": 21, "title": 27}
RENDERED_KEPT = 600


class Theme:
    """Draws text and panels. Needs ``pygame.font``; text that was drawn before is reused."""

    def __init__(self) -> None:
        """Pillow's own font for Latin letters, pygame's for all others; both are always there."""
        latin = getattr(ImageFont.load_default(20), "font_bytes", None)
        self._latin = {
            name: pygame.font.Font(io.BytesIO(latin) if latin else None, size)
            for name, size in SIZES.items()
        }
        self._other = {name: pygame.font.Font(None, size) for name, size in SIZES.items()}
        self._rendered: OrderedDict[tuple[str, Size, Color], pygame.Surface] = OrderedDict()

    def render(self, text: str, size: Size = "body", color: Color = TEXT) -> pygame.Surface:
        key = (text, size, color)
        if key not in self._rendered:
            self._rendered[key] = self._font(text, size).render(text, True, color)
        self._rendered.move_to_end(key)
        if len(self._rendered) > RENDERED_KEPT:
            self._rendered.popitem(last=False)
        return self._rendered[key]

    def width(self, text: str, size: Size = "body") -> int:
        return self._font(text, size).size(text)[0]

    def text(
        self,
        surface: pygame.Surface,
        text: str,
        place: tuple[int, int],
        size: Size = "body",
        color: Color = TEXT,
        align: Literal["left", "right", "center"] = "left",
    ) -> pygame.Rect:
        """Write a line; ``place`` is its vertical middle, and its left, right or center."""
        line = self.render(text, size, color)
        rect = line.get_rect(centery=place[1])
        setattr(rect, {"left": "left", "right": "right", "center": "centerx"}[align], place[0])
        surface.blit(line, rect)
        return rect

    def clipped(self, text: str, width: int, size: Size = "body") -> str:
        if self.width(text, size) <= width:
            return text
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.width(text[:middle].rstrip() + "...", size) <= width
            low, high = (middle, high) if fits else (low, middle - 1)
        return text[:low].rstrip() + "..."

    def wrapped(self, text: str, width: int, size: Size = "body") -> list[str]:
        lines = [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and self.width(longer, size) > width:
                lines.append(word)
            else:
                lines[-1] = longer
        return [self.clipped(line, width, size) for line in lines]

    def _font(self, text: str, size: Size) -> pygame.font.Font:
        return (self._latin if text.isascii() else self._other)[size]

    def pill(
        self, surface: pygame.Surface, text: str, left: int, middle: int, color: Color
    ) -> pygame.Rect:
        line = self.render(text, "small", color)
        rect = pygame.Rect(left, 0, line.get_width() + 18, 22)
        rect.centery = middle
        pygame.draw.rect(surface, mixed(color, PANEL, 0.16), rect, border_radius=11)
        pygame.draw.rect(surface, mixed(color, PANEL, 0.55), rect, width=1, border_radius=11)
        surface.blit(line, line.get_rect(center=rect.center))
        return rect


def panel(
    surface: pygame.Surface,
    rect: pygame.Rect,
    color: Color = PANEL,
    edge: Color | None = EDGE,
    radius: int = 8,
    alpha: int = 255,
) -> None:
    """A rounded plate; ``alpha`` below 255 lets the picture shine through."""
    if alpha == 255:
        pygame.draw.rect(surface, color, rect, border_radius=radius)
    else:
        plate = pygame.Surface(rect.size, pygame.SRCALPHA)
        pygame.draw.rect(plate, (*color, alpha), plate.get_rect(), border_radius=radius)
        surface.blit(plate, rect)
    if edge is not None:
        pygame.draw.rect(surface, edge, rect, width=1, border_radius=radius)


def bar(surface: pygame.Surface, rect: pygame.Rect, share: float, color: Color) -> None:
    """A bar that is filled up to ``share`` (0 .. 1)."""
    radius = rect.height // 2
    pygame.draw.rect(surface, PANEL_HIGH, rect, border_radius=radius)
    width = round(rect.width * min(max(share, 0.0), 1.0))
    if width:
        filled = pygame.Rect(rect.left, rect.top, max(width, rect.height), rect.height)
        pygame.draw.rect(surface, color, filled, border_radius=radius)


def shade(surface: pygame.Surface, alpha: int = 170) -> None:
    dark = pygame.Surface(surface.get_size(), pygame.SRCALPHA)
    dark.fill((*BACK, alpha))
    surface.blit(dark, (0, 0))


def mixed(front: Color, back: Color, share: float) -> Color:
    pairs = zip(front, back, strict=True)
    red, green, blue = (round(f * share + b * (1 - share)) for f, b in pairs)
    return red, green, blue


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
