"""Buttons, chips, key caps and icons: drawn, and noted down for the mouse, in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import pygame

from magi_world.demos.window import theme
from magi_world.demos.window.spots import Spot, Spots
from magi_world.demos.window.theme import Color, Theme

Icon = Literal[
    "play", "pause", "step", "back", "forward", "start", "end", "fork", "record", "stop", "photo",
    "slots", "worlds", "help", "full", "figures", "close",
]  # fmt: skip
_ARROWS = {"left": "←", "right": "→", "up": "↑", "down": "↓"}


@dataclass(frozen=True)
class Brush:
    """What every part of the window draws with."""

    surface: pygame.Surface
    letters: Theme
    spots: Spots

    def button(
        self,
        name: str,
        rect: pygame.Rect,
        does: Callable[[], object],
        text: str = "",
        icon: Icon | None = None,
        keys: Sequence[str] = (),
        tip: str = "",
        color: Color | None = None,
    ) -> pygame.Rect:
        """A button; ``color`` marks one that is on.    keys: shown as a key cap at its right."""
        hot = self.spots.add(Spot(name, rect, does, tip))
        fill = theme.PANEL_HIGH if not hot else theme.mixed(theme.TEXT, theme.PANEL_HIGH, 0.12)
        if color is not None:
            fill = theme.mixed(color, fill, 0.22)
        edge = color if color is not None else theme.FAINT if hot else theme.EDGE
        theme.panel(self.surface, rect, fill, edge, radius=9)
        ink = color or (theme.TEXT if hot or not icon else theme.DIM)
        left = rect.left + 12
        if icon is not None:
            place = (rect.left + 18, rect.centery) if text else rect.center
            draw_icon(self.surface, icon, place, ink)
            left = rect.left + 34
        if text:
            room = rect.right - left - 10
            for cap in reversed(keys):
                room = self.cap(cap, rect.left + (left - rect.left) + room, rect.centery) - left - 6
            words = self.letters.clipped(text, max(0, room), "small")
            self.letters.text(self.surface, words, (left, rect.centery), "small", ink)
        return rect

    def width(self, text: str, keys: Sequence[str] = (), icon: bool = False) -> int:
        """Of a button with this in it."""
        caps = sum(self._cap_width(key) + 6 for key in keys)
        return self.letters.width(text, "small") + 24 + caps + (22 if icon else 0)

    def cap(self, key: str, right: int, middle: int) -> int:
        """A key cap that ends at ``right``; where it begins."""
        width = self._cap_width(key)
        rect = pygame.Rect(right - width, middle - 9, width, 18)
        pygame.draw.rect(self.surface, theme.BACK, rect, border_radius=4)
        pygame.draw.rect(self.surface, theme.EDGE, rect, width=1, border_radius=4)
        if key in _ARROWS:
            _arrow(self.surface, key, rect.center, theme.DIM)
        else:
            label = key_name(key)
            self.letters.text(self.surface, label, rect.center, "tiny", theme.DIM, "center")
        return rect.left

    def _cap_width(self, key: str) -> int:
        return 20 if key in _ARROWS else max(20, self.letters.width(key_name(key), "tiny") + 10)


def key_name(key: str) -> str:
    """As it stands on a keyboard."""
    names = {"return": "Enter", "space": "Space", "escape": "Esc", "page up": "Page Up"}
    if key in names:
        return names[key]
    return "+".join(part[:1].upper() + part[1:] for part in key.split("+")) or key


def _arrow(surface: pygame.Surface, way: str, center: tuple[int, int], color: Color) -> None:
    x, y = center
    tips = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
    dx, dy = tips[way]
    tip = (x + 4 * dx, y + 4 * dy)
    wings = [(x - 2 * dx + 4 * dy, y - 2 * dy + 4 * dx), (x - 2 * dx - 4 * dy, y - 2 * dy - 4 * dx)]
    pygame.draw.polygon(surface, color, [tip, *wings])


def draw_icon(surface: pygame.Surface, icon: Icon, center: tuple[int, int], color: Color) -> None:
    """A small picture, about 16 pixels wide."""
    x, y = center

    def poly(*points: tuple[int, int]) -> None:
        pygame.draw.polygon(surface, color, [(x + a, y + b) for a, b in points])

    def box(left: int, top: int, width: int, height: int, line: int = 0, radius: int = 1) -> None:
        rect = pygame.Rect(x + left, y + top, width, height)
        pygame.draw.rect(surface, color, rect, line, border_radius=radius)

    def line(*points: tuple[int, int]) -> None:
        pygame.draw.lines(surface, color, False, [(x + a, y + b) for a, b in points], 2)

    match icon:
        case "play":
            poly((-5, -7), (7, 0), (-5, 7))
        case "pause":
            box(-6, -6, 4, 13)
            box(2, -6, 4, 13)
        case "step":
            poly((-6, -6), (3, 0), (-6, 6))
            box(4, -6, 3, 13)
        case "back":
            line((3, -6), (-4, 0), (3, 6))
        case "forward":
            line((-3, -6), (4, 0), (-3, 6))
        case "start":
            box(-7, -6, 2, 13)
            line((5, -6), (-2, 0), (5, 6))
        case "end":
            box(5, -6, 2, 13)
            line((-5, -6), (2, 0), (-5, 6))
        case "fork":
            line((-7, 0), (-2, 0), (6, -6))
            line((-2, 0), (7, 0))
            line((-2, 0), (6, 6))
        case "record":
            pygame.draw.circle(surface, color, center, 6)
        case "stop":
            box(-5, -5, 11, 11)
        case "photo":
            box(-8, -5, 16, 12, 2, 3)
            pygame.draw.circle(surface, color, (x, y + 1), 3)
            box(-3, -7, 6, 3)
        case "slots":
            line((-6, -7), (-6, 7), (0, 2), (6, 7), (6, -7), (-6, -7))
        case "worlds":
            for left in (-7, 1):
                for top in (-7, 1):
                    box(left, top, 6, 6, 2)
        case "help":
            font = pygame.font.Font(None, 24)
            mark = font.render("?", True, color)
            surface.blit(mark, mark.get_rect(center=(x, y + 1)))
        case "full":
            for sx in (-1, 1):
                for sy in (-1, 1):
                    line((sx * 2, sy * 6), (sx * 6, sy * 6), (sx * 6, sy * 2))
        case "figures":
            box(-7, 0, 3, 7)
            box(-2, -6, 3, 13)
            box(3, -3, 3, 10)
        case "close":
            line((-4, -4), (4, 4))
            line((4, -4), (-4, 4))
