"""Buttons, chips, key caps and icons: drawn, and noted down for the mouse, in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import pygame

from magi_world.demos.window import theme
from magi_world.demos.window.theme import Color, Size, Theme, fitted

Place = tuple[int, int]


@dataclass(frozen=True)
class Spot:
    """An area that can be clicked.

    name: for tests and for telling spots apart.    does: what a click does.
    tip: what is said about it while the mouse rests there.
    drags: of an area that is dragged: called with the share (0 .. 1) of its width.
    """

    name: str
    rect: pygame.Rect
    does: Callable[[], object] = lambda: None
    tip: str = ""
    drags: Callable[[float], object] | None = None


class Spots:
    """The areas of the picture of the window that was drawn last; later ones lie on top."""

    def __init__(self) -> None:
        self.mouse: Place | None = None
        self._spots: list[Spot] = []
        self._dragged: Spot | None = None

    def clear(self) -> None:
        """The window is drawn anew, or something lies over all that was drawn so far."""
        self._spots = []

    def add(self, spot: Spot) -> bool:
        """Note it down; whether the mouse is there."""
        self._spots.append(spot)
        return self.mouse is not None and spot.rect.collidepoint(self.mouse)

    def named(self, name: str) -> Spot:
        """The topmost spot of this name. Raises KeyError: there is none."""
        for spot in reversed(self._spots):
            if spot.name == name:
                return spot
        raise KeyError(f"there is no {name!r} to click; there are {sorted(self.names)}")

    @property
    def names(self) -> set[str]:
        return {spot.name for spot in self._spots}

    @property
    def under(self) -> Spot | None:
        return None if self.mouse is None else self._at(self.mouse)

    @property
    def dragging(self) -> bool:
        return self._dragged is not None

    def press(self, place: Place) -> bool:
        """The button went down; whether there was something."""
        self.mouse = place
        spot = self._at(place)
        if spot is None:
            return False
        if spot.drags is not None:
            self._dragged = spot
            self.move(place)
        else:
            spot.does()
        return True

    def move(self, place: Place) -> None:
        self.mouse = place
        if self._dragged is not None and self._dragged.drags is not None:
            rect = self._dragged.rect
            share = (place[0] - rect.left) / max(1, rect.width)
            self._dragged.drags(min(max(share, 0.0), 1.0))

    def release(self) -> None:
        self._dragged = None

    def _at(self, place: Place) -> Spot | None:
        return next((s for s in reversed(self._spots) if s.rect.collidepoint(place)), None)


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

    def text(
        self,
        words: str,
        place: tuple[int, int],
        size: Size = "body",
        color: Color = theme.TEXT,
        align: Literal["left", "right", "center"] = "left",
        fit: int | None = None,
    ) -> pygame.Rect:
        """Write a line, as `Theme.text` does; dots end what is wider than ``fit``."""
        if fit is not None:
            words = self.letters.clipped(words, fit, size)
        return self.letters.text(self.surface, words, place, size, color, align)

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
            self.text(words, (left, rect.centery), "small", ink)
        return rect

    def width(self, text: str, keys: Sequence[str] = ()) -> int:
        caps = sum(self._cap_width(key) + 6 for key in keys)
        return self.letters.width(text, "small") + 24 + caps

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
            self.text(label, rect.center, "tiny", theme.DIM, "center")
        return rect.left

    def _cap_width(self, key: str) -> int:
        return 20 if key in _ARROWS else max(20, self.letters.width(key_name(key), "tiny") + 10)


def key_name(key: str) -> str:
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


COLUMN, COLUMN_MOST = 340, 480
HEADER, FOOTER = 48, 168
LEAST_FOR_COMMANDS = 560  # height of a window in which the commands fit below the picture


@dataclass(frozen=True)
class Layout:
    """The parts of the window.

    picture: where the world is.    column: beside it; None where all is above and below it.
    header: name, who steers.    commands: what can be said; may be without area.
    timeline, transport, line: the slider, its buttons, and where text is typed.
    """

    picture: pygame.Rect
    column: pygame.Rect | None
    header: pygame.Rect
    status: pygame.Rect
    commands: pygame.Rect
    timeline: pygame.Rect
    transport: pygame.Rect
    line: pygame.Rect


def arrange(screen: pygame.Rect, frame_size: tuple[int, int]) -> Layout:
    """For a world of (height, width), whichever way shows it larger."""
    height, width = frame_size
    shape = width / height
    room = min(COLUMN_MOST, max(COLUMN, round(screen.width - screen.height * shape)))
    beside = pygame.Rect(0, 0, max(1, screen.width - room), screen.height)
    footer = FOOTER if screen.height >= LEAST_FOR_COMMANDS else FOOTER - 40
    below = pygame.Rect(0, HEADER, screen.width, max(1, screen.height - HEADER - footer))
    size = width, height
    if fitted(size, beside).width >= fitted(size, below).width:
        return _beside(screen, beside)
    return _below(screen, below)


def _beside(screen: pygame.Rect, picture: pygame.Rect) -> Layout:
    column = pygame.Rect(picture.right, 0, screen.width - picture.width, screen.height)
    pad = 24
    left, width = column.left + pad, column.width - 2 * pad
    line = pygame.Rect(left, column.bottom - pad - 46, width, 46)
    transport = pygame.Rect(left, line.top - 18 - 36, width, 36)
    timeline = pygame.Rect(left, transport.top - 26, width, 18)
    header = pygame.Rect(left, 20, width, 84)
    status = pygame.Rect(left, header.bottom + 14, width, 160)
    commands = pygame.Rect(left, status.bottom + 8, width, 0)
    commands.height = max(0, timeline.top - 16 - commands.top)
    return Layout(picture, column, header, status, commands, timeline, transport, line)


def _below(screen: pygame.Rect, picture: pygame.Rect) -> Layout:
    pad = 16
    left, width = pad, max(1, screen.width - 2 * pad)
    header = pygame.Rect(left, 0, width, HEADER)
    line = pygame.Rect(left, screen.bottom - 12 - 42, width, 42)
    transport = pygame.Rect(left, line.top - 10 - 36, min(width, 330), 36)
    status = pygame.Rect(transport.right + 18, transport.top, 0, 36)
    status.width = max(0, left + width - status.left)
    timeline = pygame.Rect(left, transport.top - 22, width, 18)
    commands = pygame.Rect(left, picture.bottom + 4, width, 0)
    commands.height = max(0, timeline.top - 4 - commands.top)
    if commands.height < 30:
        commands.height = 0
    return Layout(picture, None, header, status, commands, timeline, transport, line)
