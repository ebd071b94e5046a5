"""The whole window, put together. It reads the state and the player and changes neither."""

from __future__ import annotations

from functools import partial

import pygame

from magi_world.demos.window import theme
from magi_world.demos.window.brush import Brush, Layout, Spot, Spots, arrange
from magi_world.demos.window.controls import (
    draw_commands,
    draw_line,
    draw_timeline,
    draw_transport,
)
from magi_world.demos.window.jobs import Futures
from magi_world.demos.window.overlays import draw_overlay
from magi_world.demos.window.panels import (
    draw_figures,
    draw_flashes,
    draw_header,
    draw_notices,
    draw_status,
)
from magi_world.demos.window.state import AppState
from magi_world.demos.window.theme import Picture, Theme, fitted

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
        self._pictures: list[Picture] = []

    def draw(self, brush: Brush, area: pygame.Rect, futures: Futures, state: AppState) -> None:
        count, surface, letters = len(futures.commands), brush.surface, brush.letters
        self._pictures += [Picture() for _ in range(count - len(self._pictures))]
        for i, (pane, frame) in enumerate(zip(panes(area, count), futures.frames, strict=True)):
            chosen = i == futures.selected
            brush.spots.add(Spot(f"future {i}", pane, partial(state.pick_future, i)))
            edge = theme.ACCENT if chosen else theme.EDGE
            theme.panel(surface, pane, theme.PANEL, edge, radius=12)
            inside = pygame.Rect(
                pane.left + 6, pane.top + LABEL, max(1, pane.width - 12), pane.height - LABEL - 6
            )
            inside.height = max(1, inside.height)
            rect = fitted((frame.shape[1], frame.shape[0]), inside, whole=not state.smooth)
            self._pictures[i].draw(surface, frame, rect, state.smooth)
            middle = pane.top + LABEL // 2 + 1
            left = brush.cap(f"{i + 1}", pane.left + 34, middle) + 32
            words = letters.clipped(futures.commands[i], max(0, pane.right - left - 90))
            color = theme.TEXT if chosen else theme.DIM
            brush.text(words, (left, middle), color=color)
            if pane.width > 220:
                keep = pygame.Rect(pane.right - 72, pane.top + 5, 66, LABEL - 10)
                brush.button(
                    f"keep {i}",
                    keep,
                    partial(state.player.keep, i),
                    "Keep",
                    color=theme.ACCENT if chosen else None,
                )
        self._draw_foot(brush, area, futures, state)

    def _draw_foot(
        self, brush: Brush, area: pygame.Rect, futures: Futures, state: AppState
    ) -> None:
        middle, left = area.bottom - FOOT // 2 - 2, area.left + 14
        made, wanted = len(futures.chunks), futures.wanted
        if not futures.complete:
            done, total = state.player.runner.progress
            share = (made + (done / total if total else 0)) / wanted
            theme.bar(brush.surface, pygame.Rect(left, middle - 3, 90, 6), share, theme.AGENT)
            words = f"imagining chunk {made + 1} of {wanted}"
            left += 102
        else:
            words = f"{futures.chunk_shown} of {wanted} chunks ahead"
        right = area.right - 12
        for name, does, text, keys in (
            ("drop futures", state.player.what_if, "None of them", ("escape",)),
            ("further", state.further, "Look further", ("+",)),
        ):
            width = brush.width(text, keys)
            place = pygame.Rect(right - width, middle - 16, width, 32)
            if place.left > left + 150:
                brush.button(name, place, does, text, keys=keys)
                right = place.left - 8
        room = max(0, right - left - 10)
        brush.text(words, (left, middle), "small", theme.DIM, fit=room)


SQUARE = (64, 64)  # the shape of the picture while no world is open


class View:
    """Draws a state on a surface of any size.

    spots: where the mouse can do something, in the picture that was drawn last.
    """

    def __init__(self) -> None:
        """Needs ``pygame.font`` to be running."""
        self.spots = Spots()
        self._letters = Theme()
        self._picture, self._fork = Picture(), ForkView()

    def draw(self, surface: pygame.Surface, state: AppState) -> None:
        self.spots.clear()
        brush = Brush(surface, self._letters, self.spots)
        layout = layout_of(surface.get_rect(), state)
        surface.fill(theme.BACK)
        self._draw_world(brush, layout, state)
        self._draw_plates(brush, layout)
        draw_header(brush, layout, state)
        draw_status(brush, layout, state)
        draw_commands(brush, layout, state)
        draw_timeline(brush, layout, state)
        draw_transport(brush, layout, state)
        draw_line(brush, layout, state)
        notices = state.player.notices.shown
        if state.overlay:
            draw_overlay(brush, state)
            notices = tuple(n for n in notices if n.level == "error")
        above = layout.picture.copy()
        if state.player.futures is not None:
            above.height -= FOOT
        draw_notices(brush, above, notices)
        self._draw_tip(brush)

    def _draw_world(self, brush: Brush, layout: Layout, state: AppState) -> None:
        player, area = state.player, layout.picture
        if player.futures is not None:
            self._fork.draw(brush, area, player.futures, state)
        elif (frame := player.playback.frame) is not None:
            size = frame.shape[1], frame.shape[0]
            rect = fitted(size, area, whole=not state.smooth)
            self._picture.draw(brush.surface, frame, rect, state.smooth)
            brush.spots.add(Spot("world", rect, lambda: player.pause()))
            draw_flashes(brush, rect, player)
            if state.hud:
                draw_figures(brush, area, player)
            if player.playback.paused and not player.playback.running:
                _draw_paused(brush, rect)
        else:
            words = player.work or "No world is open: M picks one"
            self._letters.text(brush.surface, words, area.center, "large", theme.DIM, "center")
            if player.work:
                _draw_busy(brush, area, player.now)

    def _draw_plates(self, brush: Brush, layout: Layout) -> None:
        screen = brush.surface.get_rect()
        if layout.column is not None:
            pygame.draw.rect(brush.surface, theme.PANEL, layout.column)
            return
        top = pygame.Rect(0, 0, screen.width, layout.picture.top)
        bottom = pygame.Rect(0, layout.picture.bottom, screen.width, screen.height)
        for plate in (top, bottom):
            pygame.draw.rect(brush.surface, theme.PANEL, plate)

    def _draw_tip(self, brush: Brush) -> None:
        spot = self.spots.under
        if spot is None or not spot.tip or self.spots.dragging:
            return
        letters = self._letters
        card = pygame.Rect(0, 0, letters.width(spot.tip, "tiny") + 20, 26)
        card.midbottom = (spot.rect.centerx, spot.rect.top - 6)
        if card.top < 0:
            card.midtop = (spot.rect.centerx, spot.rect.bottom + 6)
        card.clamp_ip(brush.surface.get_rect())
        theme.panel(brush.surface, card, theme.BACK, theme.EDGE, 7)
        brush.text(spot.tip, card.center, "tiny", theme.TEXT, "center")


def layout_of(screen: pygame.Rect, state: AppState) -> Layout:
    opened = state.player.opened
    return arrange(screen, SQUARE if opened is None else opened.spec.frame_size)


def _draw_busy(brush: Brush, area: pygame.Rect, now: float) -> None:
    """A bar that runs back and forth while a world is opened: how long that takes is not known."""
    groove = pygame.Rect(0, 0, min(220, area.width - 20), 4)
    groove.midtop = (area.centerx, area.centery + 28)
    theme.bar(brush.surface, groove, 0.0, theme.ACCENT)
    width = groove.width // 4
    phase = now / 1.6 % 1.0
    share = 1 - abs(2 * phase - 1)
    piece = pygame.Rect(groove.left + round((groove.width - width) * share), groove.top, width, 4)
    pygame.draw.rect(brush.surface, theme.ACCENT, piece, border_radius=2)


def _draw_paused(brush: Brush, rect: pygame.Rect) -> None:
    """A mark in the corner, so that a still picture is not taken for a broken one."""
    place = pygame.Rect(rect.left + 16, rect.top + 16, 36, 36)
    plate = pygame.Surface(place.size, pygame.SRCALPHA)
    pygame.draw.rect(plate, (*theme.BACK, 170), plate.get_rect(), border_radius=10)
    brush.surface.blit(plate, place)
    for left in (11, 20):
        bar = pygame.Rect(place.left + left, place.top + 10, 5, 16)
        pygame.draw.rect(brush.surface, theme.WARN, bar, border_radius=1)
