"""The whole window, put together. It reads the desk and the player and changes neither."""

from __future__ import annotations

import pygame

from magi_world.demos.window import theme
from magi_world.demos.window.brush import Brush
from magi_world.demos.window.controls import (
    draw_commands,
    draw_line,
    draw_timeline,
    draw_transport,
)
from magi_world.demos.window.desk import Desk
from magi_world.demos.window.fork_view import FOOT, ForkView
from magi_world.demos.window.head import draw_header, draw_status
from magi_world.demos.window.layout import Layout, arrange
from magi_world.demos.window.overlays import draw_overlay
from magi_world.demos.window.panels import draw_figures, draw_flashes, draw_notices
from magi_world.demos.window.picture import Picture, fitted
from magi_world.demos.window.spots import Spot, Spots
from magi_world.demos.window.theme import Theme

SQUARE = (64, 64)  # the shape of the picture while no world is open
TIP_AFTER = 24  # height of a tip over what it is about


class View:
    """Draws a desk on a surface of any size.

    spots: where the mouse can do something, in the picture that was drawn last.
    """

    def __init__(self) -> None:
        """Needs ``pygame.font`` to be running."""
        self.spots = Spots()
        self._letters = Theme()
        self._picture, self._fork = Picture(), ForkView()

    def draw(self, surface: pygame.Surface, desk: Desk) -> None:
        """One picture of the window."""
        self.spots.clear()
        brush = Brush(surface, self._letters, self.spots)
        layout = layout_of(surface.get_rect(), desk)
        surface.fill(theme.BACK)
        self._draw_world(brush, layout, desk)
        self._draw_plates(brush, layout)
        draw_header(brush, layout, desk)
        draw_status(brush, layout, desk)
        draw_commands(brush, layout, desk)
        draw_timeline(brush, layout, desk)
        draw_transport(brush, layout, desk)
        draw_line(brush, layout, desk)
        notices = desk.player.notices.shown
        if desk.overlay:
            draw_overlay(brush, desk)
            notices = tuple(n for n in notices if n.level == "error")
        above = layout.picture.copy()
        if desk.player.futures is not None:
            above.height -= FOOT
        draw_notices(brush, above, notices)
        self._draw_tip(brush)

    def _draw_world(self, brush: Brush, layout: Layout, desk: Desk) -> None:
        player, area = desk.player, layout.picture
        if player.futures is not None:
            self._fork.draw(brush, area, player.futures, desk)
        elif (frame := player.playback.frame) is not None:
            size = frame.shape[1], frame.shape[0]
            rect = fitted(size, area, whole=not desk.smooth)
            self._picture.draw(brush.surface, frame, rect, desk.smooth)
            brush.spots.add(Spot("world", rect, lambda: player.pause()))
            draw_flashes(brush, rect, player)
            if desk.hud:
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
        """What the thing under the mouse is for."""
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
        letters.text(brush.surface, spot.tip, card.center, "tiny", theme.TEXT, "center")


def layout_of(screen: pygame.Rect, desk: Desk) -> Layout:
    """Where everything is, for the world that is open."""
    opened = desk.player.opened
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
