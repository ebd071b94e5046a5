"""Four futures side by side."""

from __future__ import annotations

import pygame

from magi_world.demos.window import theme
from magi_world.demos.window.futures import Futures
from magi_world.demos.window.picture import Picture, fitted
from magi_world.demos.window.theme import Theme

LABEL, FOOT = 30, 40


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

    def draw(
        self,
        surface: pygame.Surface,
        area: pygame.Rect,
        futures: Futures,
        letters: Theme,
        smooth: bool,
        progress: tuple[int, int],
    ) -> None:
        """All of them, their commands, and how far they are."""
        count = futures.config.count
        self._pictures += [Picture() for _ in range(count - len(self._pictures))]
        for i, (pane, frame) in enumerate(zip(panes(area, count), futures.frames, strict=True)):
            chosen = i == futures.selected
            theme.panel(surface, pane, theme.PANEL, theme.ACCENT if chosen else theme.EDGE)
            inside = pygame.Rect(
                pane.left + 4, pane.top + LABEL, pane.width - 8, pane.height - LABEL - 4
            )
            rect = fitted((frame.shape[1], frame.shape[0]), inside)
            self._pictures[i].draw(surface, frame, rect, smooth)
            middle = pane.top + LABEL // 2 + 1
            number = letters.text(surface, f"{i + 1}", (pane.left + 12, middle), color=theme.ACCENT)
            words = letters.clipped(futures.commands[i], pane.width - 50)
            color = theme.TEXT if chosen else theme.DIM
            letters.text(surface, words, (number.right + 10, middle), color=color)
        self._draw_foot(surface, area, futures, letters, progress)

    def _draw_foot(
        self,
        surface: pygame.Surface,
        area: pygame.Rect,
        futures: Futures,
        letters: Theme,
        progress: tuple[int, int],
    ) -> None:
        middle, left = area.bottom - FOOT // 2 - 4, area.left + 14
        made, wanted = len(futures.chunks), futures.wanted
        if not futures.complete:
            done, total = progress
            share = (made + (done / total if total else 0)) / wanted
            theme.bar(surface, pygame.Rect(left, middle - 3, 90, 6), share, theme.AGENT)
            words = f"imagining chunk {made + 1} of {wanted}"
            letters.text(surface, words, (left + 102, middle), "small", theme.DIM)
        else:
            words = f"{futures.chunk_shown} of {wanted} chunks ahead"
            letters.text(surface, words, (left, middle), "small", theme.DIM)
        keys = "1-4 keep    arrows select    Enter other command    + further    Esc drop"
        letters.text(surface, keys, (area.right - 14, middle), "small", theme.DIM, "right")
