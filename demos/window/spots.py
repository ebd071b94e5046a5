"""Where the mouse can do something: noted down while the window is drawn, so both always agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pygame

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
        """Nothing has been drawn."""
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
        """The topmost spot of this name.

        Raises:
            KeyError: there is none.
        """
        for spot in reversed(self._spots):
            if spot.name == name:
                return spot
        raise KeyError(f"there is no {name!r} to click; there are {sorted(self.names)}")

    @property
    def names(self) -> set[str]:
        """Of all spots."""
        return {spot.name for spot in self._spots}

    @property
    def under(self) -> Spot | None:
        """What the mouse is on."""
        return None if self.mouse is None else self._at(self.mouse)

    @property
    def dragging(self) -> bool:
        """Whether something is being dragged."""
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
        """The mouse moved."""
        self.mouse = place
        if self._dragged is not None and self._dragged.drags is not None:
            rect = self._dragged.rect
            share = (place[0] - rect.left) / max(1, rect.width)
            self._dragged.drags(min(max(share, 0.0), 1.0))

    def release(self) -> None:
        """The button went up."""
        self._dragged = None

    def _at(self, place: Place) -> Spot | None:
        return next((s for s in reversed(self._spots) if s.rect.collidepoint(place)), None)
