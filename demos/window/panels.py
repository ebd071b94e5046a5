"""What lies on top of the picture: figures, messages, what has just happened."""

from __future__ import annotations

from collections.abc import Sequence

import pygame

from magi_world.demos.window import theme
from magi_world.demos.window.brush import Brush
from magi_world.demos.window.figures import figures
from magi_world.demos.window.notices import Notice
from magi_world.demos.window.player import Player

HUD_WIDTH = 250


def draw_figures(brush: Brush, area: pygame.Rect, player: Player) -> None:
    """The figures, at the top right of the picture, and how far the next chunk is."""
    groups = figures(player)
    if not groups:
        return
    row, gap, letters, surface = 20, 12, brush.letters, brush.surface
    height = sum(26 + row * len(rows) + gap for _, rows in groups) + 22
    plate = pygame.Rect(0, area.top + 12, min(HUD_WIDTH, area.width), min(height, area.height - 24))
    plate.right = area.right - 12
    theme.panel(surface, plate, alpha=225)
    clip = surface.get_clip()
    surface.set_clip(plate.inflate(-2, -2))
    left, right, top = plate.left + 14, plate.right - 14, plate.top + 20
    for title, rows in groups:
        letters.text(surface, title, (left, top), "small", theme.ACCENT)
        top += 23
        for label, value in rows:
            letters.text(surface, label, (left, top), "tiny", theme.DIM)
            letters.text(surface, value, (right, top), "tiny", theme.TEXT, "right")
            top += row
        if title == "Chunk":
            done, total = player.runner.progress
            making = pygame.Rect(left, top - 6, right - left, 4)
            theme.bar(surface, making, done / total if total else 0.0, theme.ACCENT)
            top += 6
        top += gap - 4
    surface.set_clip(clip)


def draw_notices(brush: Brush, area: pygame.Rect, notices: Sequence[Notice]) -> None:
    """Messages, the newest at the bottom."""
    bottom = area.bottom - 16
    for notice in reversed(notices):
        color = {"error": theme.BAD, "refused": theme.WARN}.get(notice.level, theme.ACCENT)
        lines = brush.letters.wrapped(notice.text, max(40, min(area.width - 80, 620)))
        width = max(brush.letters.width(line) for line in lines) + 44
        rect = pygame.Rect(0, 0, width, 22 * len(lines) + 20)
        rect.midbottom = (area.centerx, bottom)
        theme.panel(brush.surface, rect, theme.PANEL, theme.EDGE, 12, alpha=240)
        edge = pygame.Rect(rect.left + 8, rect.top + 10, 3, rect.height - 20)
        pygame.draw.rect(brush.surface, color, edge, border_radius=2)
        for i, line in enumerate(lines):
            brush.letters.text(brush.surface, line, (rect.left + 24, rect.top + 21 + 22 * i))
        bottom = rect.top - 8


def draw_flashes(brush: Brush, picture: pygame.Rect, player: Player) -> None:
    """What the world's heads saw happen: it rises over the picture and fades."""
    for event, age in player.flashes.current(player.now):
        glow = pygame.Surface(picture.size, pygame.SRCALPHA)
        strength = round(150 * (1 - age))
        pygame.draw.rect(glow, (*theme.GOOD, strength), glow.get_rect(), width=6)
        brush.surface.blit(glow, picture)
        words = brush.letters.render(f"+1 {event}", "title", theme.GOOD)
        shadow = brush.letters.render(f"+1 {event}", "title", theme.BACK)
        height = picture.top + picture.height // 3 - round(40 * age)
        place = words.get_rect(center=(picture.centerx, height))
        for picture_of, shift in ((shadow, 2), (words, 0)):
            faded = picture_of.copy()
            faded.set_alpha(round(255 * (1 - age * age)))
            brush.surface.blit(faded, place.move(shift, shift))
