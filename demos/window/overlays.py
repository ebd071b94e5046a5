"""What lies over the whole window: help, the worlds to pick from, the saved moments."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pygame

from magi_world.demos.window import theme
from magi_world.demos.window.brush import Brush, Spot
from magi_world.demos.window.keyboard import SHORTCUTS
from magi_world.demos.window.player import Player
from magi_world.demos.window.state import SLASH, SLOTS, AppState
from magi_world.demos.window.theme import scaled

WORLD_ROW, WORLD_THUMB = 92, 80
KEY_ROW = 21


def draw_overlay(brush: Brush, state: AppState) -> None:
    """Whatever is open, with the rest in the dark; a click beside it closes it."""
    brush.spots.clear()
    theme.shade(brush.surface, 200)
    brush.spots.add(Spot("outside", brush.surface.get_rect(), lambda: state.show(state.overlay)))
    {"help": _draw_help, "worlds": _draw_worlds, "slots": _draw_slots}[state.overlay](brush, state)


def _draw_help(brush: Brush, state: AppState) -> None:
    rect = _sheet(brush, state, 900, 660, "Keys")
    letters = brush.letters
    half = (rect.width - 56) // 2
    columns = (("Steer", "Time", "While you type"), ("World", "Keep", "View", "Slash commands"))
    for column, groups in enumerate(columns):
        left, top = rect.left + 28 + column * (half + 8), rect.top + 78
        for group in groups:
            brush.text(group, (left, top), "small", theme.ACCENT)
            top += KEY_ROW + 3
            for keys, words in help_rows(group):
                room = half - 128
                brush.text(keys, (left, top), "tiny", theme.TEXT)
                brush.text(words, (left + 120, top), "tiny", theme.DIM, fit=room)
                top += KEY_ROW - 2
            top += 9
    foot = rect.bottom - 62
    brush.text("This world", (rect.left + 28, foot), "small", theme.ACCENT)
    lines = letters.wrapped(_commands(state.player), rect.width - 56, "tiny")
    for i, words in enumerate(lines[:2]):
        place = (rect.left + 28, foot + 21 + 18 * i)
        brush.text(words, place, "tiny", theme.DIM)


def help_rows(group: str) -> list[tuple[str, str]]:
    """(keys, what they do) of a part of the help page."""
    if group == "While you type":
        return [
            ("Enter, Esc", "send it, leave"),
            ("Tab, Right", "complete it; Tab again: the next one"),
            ("Up, Down", "what you said before"),
            ("Ctrl + V, U, W", "paste; delete all; delete a word"),
        ]
    if group == "Slash commands":
        return [tuple(words.split(": ", 1)) for words in SLASH.values()]  # type: ignore[misc]
    rows = [(_keys(s.keys[0]), s.help) for s in SHORTCUTS if s.group == group and s.help]
    if group == "Steer":
        rows.insert(0, ("Arrows, WASD", "steer, as long as they are held"))
    if group == "World":
        rows.append(("Ctrl + 1 .. 9", "save this moment in a slot"))
    if group == "Time":
        rows.append(("Slider, wheel", "the same with the mouse"))
    return rows


def _draw_worlds(brush: Brush, state: AppState) -> None:
    """The picker: a picture, a name and what it obeys."""
    count = max(1, len(state.worlds))
    rect = _sheet(brush, state, 640, 96 + (WORLD_ROW + 8) * count, "Worlds")
    surface = brush.surface
    if not state.worlds:
        words = "No worlds are installed; docs/worlds.md says how to make one."
        brush.text(words, (rect.left + 28, rect.top + 86), color=theme.DIM)
    for i, name in enumerate(state.worlds):
        row = pygame.Rect(
            rect.left + 20, rect.top + 76 + (WORLD_ROW + 8) * i, rect.width - 40, WORLD_ROW
        )
        if row.bottom > rect.bottom:
            return
        hot = brush.spots.add(Spot(f"world {i}", row, partial(state.open_world, i)))
        chosen = i == state.picked or hot
        edge = theme.ACCENT if i == state.picked else None
        theme.panel(surface, row, theme.PANEL_HIGH if chosen else theme.PANEL, edge, 10)
        preview = state.previews.get(name)
        thumb = pygame.Rect(row.left + 6, row.top + 6, WORLD_THUMB, WORLD_THUMB)
        theme.panel(surface, thumb, theme.BACK, None, 6)
        if preview is not None and preview.picture is not None:
            h, w = preview.picture.shape[:2]
            size = (
                max(1, round(WORLD_THUMB * min(1, w / h))),
                max(1, round(WORLD_THUMB * min(1, h / w))),
            )
            picture = scaled(preview.picture, size)
            surface.blit(picture, picture.get_rect(center=thumb.center))
        else:
            brush.text(name[:1].upper(), thumb.center, "title", theme.FAINT, "center")
        left, room = thumb.right + 16, row.right - thumb.right - 90
        brush.text(name, (left, row.top + 22), fit=room)
        about = "" if preview is None else preview.spec.description
        obeys = "" if preview is None else preview.obeys
        for middle, words, color in ((46, about, theme.DIM), (68, obeys, theme.FAINT)):
            brush.text(words, (left, row.top + middle), "tiny", color, fit=room + 60)
        opened = state.player.opened
        if opened is not None and opened.source == name:
            place = (row.right - 16, row.top + 22)
            brush.text("open", place, "small", theme.GOOD, "right")
        else:
            brush.cap(str(i + 1), row.right - 14, row.top + 22)


def _draw_slots(brush: Brush, state: AppState) -> None:
    rect = _sheet(brush, state, 620, 560, "Saved moments")
    surface = brush.surface
    words = "1 .. 9 or a click loads; Ctrl + 1 .. 9, or a click on an empty one, saves this moment"
    brush.text(words, (rect.left + 28, rect.top + 62), "tiny", theme.DIM, fit=rect.width - 56)
    width, height = (rect.width - 56 - 24) // 3, max(40, (rect.height - 110 - 24) // 3)
    for i, slot in enumerate(SLOTS):
        cell = pygame.Rect(
            rect.left + 28 + (width + 12) * (i % 3),
            rect.top + 84 + (height + 12) * (i // 3),
            width,
            height,
        )
        path = state.player.slots.path(slot) if state.player.slots else None
        full = path is not None and path.is_file()
        does = partial(state.load if full else state.save, slot)
        hot = brush.spots.add(Spot(f"slot {slot}", cell, does))
        theme.panel(surface, cell, theme.PANEL_HIGH, theme.ACCENT if hot else None, 10)
        if full and path is not None:
            _draw_thumb(brush, cell, path.with_suffix(".png"), state)
        else:
            mark = "save here" if hot else "empty"
            color = theme.TEXT if hot else theme.FAINT
            brush.text(mark, cell.center, "small", color, "center")
        brush.cap(str(slot), cell.left + 30, cell.top + 17)


def _draw_thumb(brush: Brush, cell: pygame.Rect, path: Path, state: AppState) -> None:
    opened = state.player.opened
    if opened is None or not path.is_file():
        return
    height, width = opened.spec.frame_size
    strip = pygame.image.load(path)
    if strip.get_height() != height or strip.get_width() < width:
        return
    last = strip.subsurface(pygame.Rect(strip.get_width() - width, 0, width, height))
    factor = min((cell.height - 12) / height, (cell.width - 12) / width)
    thumb = pygame.transform.smoothscale(last, (round(width * factor), round(height * factor)))
    brush.surface.blit(thumb, thumb.get_rect(center=cell.center))


def _sheet(brush: Brush, state: AppState, width: int, height: int, title: str) -> pygame.Rect:
    screen = brush.surface.get_rect()
    rect = pygame.Rect(0, 0, min(width, screen.width - 24), min(height, screen.height - 24))
    rect.center = screen.center
    theme.panel(brush.surface, rect, radius=14)
    brush.spots.add(Spot("sheet", rect))
    brush.text(title, (rect.left + 28, rect.top + 36), "title")
    cross = pygame.Rect(rect.right - 52, rect.top + 18, 36, 36)
    brush.button("close", cross, lambda: state.show(state.overlay), icon="close", tip="Close (Esc)")
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
