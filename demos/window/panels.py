"""What lies on top of the picture or beside it: figures, messages, help, worlds, slots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pygame

from magi_world.demos.window import theme
from magi_world.demos.window.desk import SLOTS, Desk
from magi_world.demos.window.figures import figures
from magi_world.demos.window.keyboard import SHORTCUTS
from magi_world.demos.window.notices import Notice
from magi_world.demos.window.player import Player
from magi_world.demos.window.theme import Theme

HUD_WIDTH = 244
THUMB = 84


def draw_hud(surface: pygame.Surface, rect: pygame.Rect, player: Player, letters: Theme) -> None:
    """The figures, and how far the next chunk is."""
    groups = figures(player)
    if not groups:
        return
    row, gap = 21, 12
    height = sum(26 + row * len(rows) + gap for _, rows in groups) + 22
    plate = pygame.Rect(rect.left, rect.top, rect.width, min(height, rect.height))
    theme.panel(surface, plate)
    clip = surface.get_clip()
    surface.set_clip(plate.inflate(-2, -2))
    left, right, top = plate.left + 14, plate.right - 14, plate.top + 20
    for title, rows in groups:
        letters.text(surface, title, (left, top), "body", theme.ACCENT)
        top += 24
        for label, value in rows:
            letters.text(surface, label, (left, top), "small", theme.DIM)
            letters.text(surface, value, (right, top), "small", theme.TEXT, "right")
            top += row
        if title == "Chunk":
            done, total = player.runner.progress
            making = pygame.Rect(left, top - 6, right - left, 4)
            theme.bar(surface, making, done / total if total else 0.0, theme.ACCENT)
            top += 6
        top += gap - 4
    surface.set_clip(clip)


def draw_notices(
    surface: pygame.Surface, area: pygame.Rect, notices: Sequence[Notice], letters: Theme
) -> None:
    """Messages, the newest at the bottom."""
    bottom = area.bottom - 12
    for notice in reversed(notices):
        color = theme.BAD if notice.level == "error" else theme.GOOD
        lines = letters.wrapped(notice.text, min(area.width - 70, 620))
        width = max(letters.width(line) for line in lines) + 34
        rect = pygame.Rect(0, 0, width, 20 * len(lines) + 16)
        rect.midbottom = (area.centerx, bottom)
        theme.panel(surface, rect, theme.PANEL, color, alpha=235)
        for i, line in enumerate(lines):
            place = (rect.left + 17, rect.top + 18 + 20 * i)
            letters.text(surface, line, place, color=theme.TEXT)
        bottom = rect.top - 8


def draw_help(surface: pygame.Surface, desk: Desk, letters: Theme) -> None:
    """Every key, and the commands of this world."""
    rect = _sheet(surface, 800, 560, "Keys", letters)
    column, left, top = 0, rect.left + 26, rect.top + 74
    groups = list(dict.fromkeys(s.group for s in SHORTCUTS))
    half = (rect.width - 52) // 2
    for group in groups:
        if column == 0 and group == "World":
            column, left, top = 1, rect.left + 26 + half, rect.top + 74
        letters.text(surface, group, (left, top), color=theme.ACCENT)
        top += 24
        rows = [(_keys(s.keys[0]), s.help) for s in SHORTCUTS if s.group == group]
        if group == "Steer":
            rows.insert(0, ("Arrows, WASD", "steer, as long as they are held"))
        if group == "World":
            rows.append(("Ctrl + 1 .. 9", "save to a slot"))
        for keys, words in rows:
            letters.text(surface, keys, (left, top), "small", theme.TEXT)
            letters.text(surface, words, (left + 112, top), "small", theme.DIM)
            top += 20
        top += 12
    foot = rect.bottom - 92
    letters.text(surface, "This world", (rect.left + 26, foot), color=theme.ACCENT)
    commands = letters.wrapped(_commands(desk.player), rect.width - 52, "small")
    for i, words in enumerate(commands[:3]):
        letters.text(surface, words, (rect.left + 26, foot + 24 + 19 * i), "small", theme.DIM)


def draw_worlds(surface: pygame.Surface, desk: Desk, letters: Theme) -> None:
    """The picker."""
    rect = _sheet(surface, 560, 120 + 44 * max(1, len(desk.worlds)), "Worlds", letters)
    if not desk.worlds:
        place = (rect.left + 26, rect.top + 86)
        letters.text(surface, "no worlds are installed", place, color=theme.DIM)
    for i, row in enumerate(world_rows(surface.get_rect(), len(desk.worlds))):
        chosen = i == desk.picked
        theme.panel(surface, row, theme.PANEL_HIGH if chosen else theme.PANEL, None)
        color = theme.TEXT if chosen else theme.DIM
        letters.text(surface, f"{i + 1}", (row.left + 14, row.centery), "small", theme.FAINT)
        letters.text(surface, desk.worlds[i], (row.left + 40, row.centery), color=color)
        opened = desk.player.opened
        if opened is not None and opened.source == desk.worlds[i]:
            place = (row.right - 14, row.centery)
            letters.text(surface, "open", place, "small", theme.GOOD, "right")


def world_rows(screen: pygame.Rect, count: int) -> list[pygame.Rect]:
    """Where the worlds of the picker are."""
    rect = _sheet_rect(screen, 560, 120 + 44 * max(1, count))
    return [
        pygame.Rect(rect.left + 16, rect.top + 66 + 44 * i, rect.width - 32, 40)
        for i in range(count)
    ]


def draw_slots(surface: pygame.Surface, desk: Desk, letters: Theme) -> None:
    """The nine slots with what lies in them."""
    rect = _sheet(surface, 560, 470, "Slots", letters)
    words = "1 .. 9 loads, Ctrl + 1 .. 9 saves"
    letters.text(surface, words, (rect.right - 26, rect.top + 34), "small", theme.DIM, "right")
    for slot, cell in zip(SLOTS, slot_cells(surface.get_rect()), strict=True):
        theme.panel(surface, cell, theme.PANEL_HIGH)
        letters.text(surface, f"{slot}", (cell.left + 12, cell.top + 16), "small", theme.DIM)
        path = desk.player.slot_path(slot) if desk.player.opened else None
        if path is not None and path.is_file():
            _draw_thumb(surface, cell, path.with_suffix(".png"), desk)
        else:
            letters.text(surface, "empty", cell.center, "small", theme.FAINT, "center")


def slot_cells(screen: pygame.Rect) -> list[pygame.Rect]:
    """Where the slots are, in order."""
    rect = _sheet_rect(screen, 560, 470)
    width, height = (rect.width - 52 - 24) // 3, 118
    return [
        pygame.Rect(
            rect.left + 26 + (width + 12) * (i % 3),
            rect.top + 70 + (height + 12) * (i // 3),
            width,
            height,
        )
        for i in range(len(SLOTS))
    ]


def _draw_thumb(surface: pygame.Surface, cell: pygame.Rect, path: Path, desk: Desk) -> None:
    opened = desk.player.opened
    if opened is None or not path.is_file():
        return
    height, width = opened.spec.frame_size
    strip = pygame.image.load(path)
    if strip.get_height() != height or strip.get_width() < width:
        return
    last = strip.subsurface(pygame.Rect(strip.get_width() - width, 0, width, height))
    factor = min(THUMB / height, (cell.width - 40) / width)
    thumb = pygame.transform.scale(last, (round(width * factor), round(height * factor)))
    surface.blit(thumb, thumb.get_rect(center=cell.center))


def _sheet_rect(screen: pygame.Rect, width: int, height: int) -> pygame.Rect:
    rect = pygame.Rect(0, 0, min(width, screen.width - 24), min(height, screen.height - 24))
    rect.center = screen.center
    return rect


def _sheet(
    surface: pygame.Surface, width: int, height: int, title: str, letters: Theme
) -> pygame.Rect:
    theme.shade(surface)
    rect = _sheet_rect(surface.get_rect(), width, height)
    theme.panel(surface, rect, radius=12)
    letters.text(surface, title, (rect.left + 26, rect.top + 34), "title")
    return rect


def _keys(key: str) -> str:
    return " + ".join(part.capitalize() for part in key.replace("return", "enter").split("+"))


def _commands(player: Player) -> str:
    if player.opened is None or not player.opened.spec.commands:
        return "obeys any text: press Enter and type"
    keymap = player.steering.keymap
    words = []
    for command in player.opened.spec.commands:
        keys = " / ".join(keymap.keys_of(command.name))
        words.append(f"{command.name} ({keys})" if keys else command.name)
    return ",  ".join(words)
