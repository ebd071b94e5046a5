"""The whole window, put together. It reads the desk and the player and changes neither."""

from __future__ import annotations

import pygame

from magi_world.demos.window import theme
from magi_world.demos.window.bars import BOTTOM, TOP, draw_bottom, draw_top
from magi_world.demos.window.desk import Desk
from magi_world.demos.window.fork_view import FOOT, ForkView
from magi_world.demos.window.panels import (
    HUD_WIDTH,
    draw_help,
    draw_hud,
    draw_notices,
    draw_slots,
    draw_worlds,
)
from magi_world.demos.window.picture import Picture, fitted
from magi_world.demos.window.theme import Theme

WIDE_ENOUGH_FOR_HUD = 620
MARGIN = 8


class View:
    """Draws a desk on a surface of any size."""

    def __init__(self) -> None:
        """Needs ``pygame.font`` to be running."""
        self._letters = Theme()
        self._picture, self._fork = Picture(), ForkView()

    def draw(self, surface: pygame.Surface, desk: Desk) -> None:
        """One picture of the window."""
        surface.fill(theme.BACK)
        screen, player = surface.get_rect(), desk.player
        area = world_area(screen, desk)
        if player.futures is not None:
            self._fork.draw(
                surface, area, player.futures, self._letters, desk.smooth, player.runner.progress
            )
        elif (frame := player.playback.frame) is not None:
            rect = fitted((frame.shape[1], frame.shape[0]), area.inflate(-2 * MARGIN, -2 * MARGIN))
            self._picture.draw(surface, frame, rect, desk.smooth)
        else:
            words = player.work or "no world is open: M picks one"
            self._letters.text(surface, words, area.center, "large", theme.DIM, "center")
        draw_top(surface, pygame.Rect(0, 0, screen.width, TOP), desk, self._letters)
        bottom = pygame.Rect(0, screen.bottom - BOTTOM, screen.width, BOTTOM)
        draw_bottom(surface, bottom, desk, self._letters)
        if _hud_fits(screen, desk):
            place = pygame.Rect(area.right, area.top + 12, HUD_WIDTH - 12, area.height - 24)
            draw_hud(surface, place, player, self._letters)
        above = area.inflate(0, -2 * FOOT) if player.futures is not None else area
        if not desk.overlay:
            draw_notices(surface, above, player.notices.shown, self._letters)
        elif desk.overlay == "help":
            draw_help(surface, desk, self._letters)
        elif desk.overlay == "worlds":
            draw_worlds(surface, desk, self._letters)
        elif desk.overlay == "slots":
            draw_slots(surface, desk, self._letters)
        if desk.overlay:
            errors = [n for n in player.notices.shown if n.level == "error"]
            draw_notices(surface, area, errors, self._letters)


def world_area(screen: pygame.Rect, desk: Desk) -> pygame.Rect:
    """Where the world is drawn."""
    width = screen.width - (HUD_WIDTH if _hud_fits(screen, desk) else 0)
    return pygame.Rect(0, TOP, max(1, width), max(1, screen.height - TOP - BOTTOM))


def _hud_fits(screen: pygame.Rect, desk: Desk) -> bool:
    return desk.hud and screen.width >= WIDE_ENOUGH_FOR_HUD and desk.player.moment is not None
