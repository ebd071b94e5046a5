"""Four futures side by side."""

from __future__ import annotations

from functools import partial

import pygame

from magi_world.demos.window import theme
from magi_world.demos.window.brush import Brush
from magi_world.demos.window.desk import Desk
from magi_world.demos.window.futures import Futures
from magi_world.demos.window.picture import Picture, fitted
from magi_world.demos.window.spots import Spot

LABEL, FOOT = 38, 52


def panes(area: pygame.Rect, count: int) -> list[pygame.Rect]:
    """Where the futures are: two columns."""
    rows = (count + 1) // 2
    gap = 12
    width = (area.width - gap * 3) // 2
    height = (area.height - FOOT - gap * (rows + 1)) // rows
    return [
        pygame.Rect(
            area.left + gap + (width + gap) * (i % 2),
            area.top + gap + (height + gap) * (i // 2),
            width,
            height,
        )
        for i in range(count)
    ]


class ForkView:
    """Draws the futures."""

    def __init__(self) -> None:
        """Nothing is drawn yet."""
        self._pictures: list[Picture] = []

    def draw(self, brush: Brush, area: pygame.Rect, futures: Futures, desk: Desk) -> None:
        """All of them, their commands, and how far they are."""
        count, surface, letters = futures.config.count, brush.surface, brush.letters
        self._pictures += [Picture() for _ in range(count - len(self._pictures))]
        for i, (pane, frame) in enumerate(zip(panes(area, count), futures.frames, strict=True)):
            chosen = i == futures.selected
            brush.spots.add(Spot(f"future {i}", pane, partial(desk.pick_future, i)))
            edge = theme.ACCENT if chosen else theme.EDGE
            theme.panel(surface, pane, theme.PANEL, edge, radius=12)
            inside = pygame.Rect(
                pane.left + 6, pane.top + LABEL, max(1, pane.width - 12), pane.height - LABEL - 6
            )
            inside.height = max(1, inside.height)
            rect = fitted((frame.shape[1], frame.shape[0]), inside, whole=not desk.smooth)
            self._pictures[i].draw(surface, frame, rect, desk.smooth)
            middle = pane.top + LABEL // 2 + 1
            left = brush.cap(f"{i + 1}", pane.left + 34, middle) + 32
            words = letters.clipped(futures.commands[i], max(0, pane.right - left - 90))
            color = theme.TEXT if chosen else theme.DIM
            letters.text(surface, words, (left, middle), color=color)
            if pane.width > 220:
                keep = pygame.Rect(pane.right - 72, pane.top + 5, 66, LABEL - 10)
                brush.button(
                    f"keep {i}",
                    keep,
                    partial(desk.player.keep, i),
                    "Keep",
                    color=theme.ACCENT if chosen else None,
                )
        self._draw_foot(brush, area, futures, desk)

    def _draw_foot(self, brush: Brush, area: pygame.Rect, futures: Futures, desk: Desk) -> None:
        middle, left = area.bottom - FOOT // 2 - 2, area.left + 14
        made, wanted = len(futures.chunks), futures.wanted
        if not futures.complete:
            done, total = desk.player.runner.progress
            share = (made + (done / total if total else 0)) / wanted
            theme.bar(brush.surface, pygame.Rect(left, middle - 3, 90, 6), share, theme.AGENT)
            words = f"imagining chunk {made + 1} of {wanted}"
            left += 102
        else:
            words = f"{futures.chunk_shown} of {wanted} chunks ahead"
        right = area.right - 12
        for name, does, text, keys in (
            ("drop futures", desk.player.what_if, "None of them", ("escape",)),
            ("further", desk.further, "Look further", ("+",)),
        ):
            width = brush.width(text, keys)
            place = pygame.Rect(right - width, middle - 16, width, 32)
            if place.left > left + 150:
                brush.button(name, place, does, text, keys=keys)
                right = place.left - 8
        room = max(0, right - left - 10)
        words = brush.letters.clipped(words, room, "small")
        brush.letters.text(brush.surface, words, (left, middle), "small", theme.DIM)
