"""The bars above and below the picture: who is in charge, what was said, where it lands."""

from __future__ import annotations

import pygame

from magi_world.demos.window import theme
from magi_world.demos.window.controllers import HUMAN
from magi_world.demos.window.desk import Desk
from magi_world.demos.window.player import Player
from magi_world.demos.window.theme import Theme

TOP, BOTTOM = 44, 112


def draw_top(surface: pygame.Surface, rect: pygame.Rect, desk: Desk, letters: Theme) -> None:
    """World, who is in charge, what is on."""
    pygame.draw.rect(surface, theme.PANEL, rect)
    pygame.draw.line(surface, theme.EDGE, rect.bottomleft, rect.bottomright)
    player, middle = desk.player, rect.centery
    name = "magi-world" if player.opened is None else player.opened.spec.name
    left = letters.text(surface, name, (rect.left + 16, middle), "large").right + 18
    charge = player.controllers.name
    human = charge == HUMAN
    color = theme.ACCENT if human else theme.AGENT
    words = "you are in charge" if human else f"{charge} in charge"
    left = letters.pill(surface, words, left, middle, color).right + 8
    for word, color in _states(desk):
        left = letters.pill(surface, word, left, middle, color).right + 8
    letters.text(surface, "F1 help", (rect.right - 16, middle), "small", theme.DIM, "right")


def _states(desk: Desk) -> list[tuple[str, theme.Color]]:
    player, states = desk.player, []
    if desk.film is not None:
        states.append(("REC", theme.BAD))
    if player.work:
        states.append((player.work, theme.WARN))
    elif player.futures is not None:
        states.append(("what if", theme.AGENT))
    elif player.playback.paused and player.moment is not None:
        word = "one chunk" if player.playback.running else "paused"
        states.append((word, theme.WARN))
    elif player.playback.waited > 0.25:
        done, total = player.runner.progress
        words = f"making chunk {player.moment.index + 1}" if player.moment else ""
        states.append((f"{words}: {done} / {total}" if total else words, theme.WARN))
    return states


def draw_bottom(surface: pygame.Surface, rect: pygame.Rect, desk: Desk, letters: Theme) -> None:
    """The ring, the commands, the line."""
    pygame.draw.rect(surface, theme.PANEL, rect)
    pygame.draw.line(surface, theme.EDGE, rect.topleft, rect.topright)
    inner = rect.inflate(-32, 0)
    _draw_ring(surface, pygame.Rect(inner.left, rect.top + 11, inner.width, 4), desk.player)
    _draw_commands(surface, inner, rect.top + 38, desk.player, letters)
    line = pygame.Rect(inner.left, rect.bottom - 50, inner.width, 38)
    draw_line(surface, line, desk, letters)


def _draw_ring(surface: pygame.Surface, rect: pygame.Rect, player: Player) -> None:
    """How much can be rewound, and where the picture is in it."""
    timeline = player.playback.timeline
    if not len(timeline):
        return
    share = timeline.position / max(1, len(timeline) - 1)
    theme.bar(surface, rect, share, theme.FAINT if timeline.at_end else theme.WARN)
    knob = (rect.left + round(rect.width * share), rect.centery)
    pygame.draw.circle(surface, theme.TEXT if timeline.at_end else theme.WARN, knob, 5)


def _draw_commands(
    surface: pygame.Surface, area: pygame.Rect, middle: int, player: Player, letters: Theme
) -> None:
    moment, lands = player.moment, player.lands
    if moment is None:
        return
    half = area.width // 2 - 30
    place = letters.text(surface, f"CHUNK {moment.index}", (area.left, middle), "small", theme.DIM)
    room = half - place.width - 10
    now = letters.clipped(moment.command or "no command", room)
    letters.text(surface, now, (place.right + 10, middle), color=theme.TEXT)
    agent = player.controllers.agent is not None
    following = f"{player.controllers.name} decides" if agent else player.command or "no command"
    new = not agent and player.command != moment.command
    label = f"LANDS ON CHUNK {lands}"
    place = letters.text(surface, label, (area.centerx, middle), "small", theme.DIM)
    room = area.right - place.right - 10
    color = theme.GOOD if new else theme.AGENT if agent else theme.DIM
    letters.text(surface, letters.clipped(following, room), (place.right + 10, middle), color=color)


def draw_line(surface: pygame.Surface, rect: pygame.Rect, desk: Desk, letters: Theme) -> None:
    """The text line: what is typed, and in grey how it could go on."""
    line = desk.line
    edge = theme.ACCENT if line.open else theme.EDGE
    theme.panel(surface, rect, theme.BACK, edge)
    left, middle = rect.left + 14, rect.centery
    if not line.open:
        words = "Enter: type any command    arrows or WASD: steer    Space: pause    F: what if"
        if desk.player.futures is not None:
            words = "Enter: type another command for the future in the blue frame"
        words = letters.clipped(words, rect.width - 28)
        letters.text(surface, words, (left, middle), color=theme.FAINT)
        return
    before = letters.width(line.text[: line.cursor])
    room = rect.width - 40
    shift = max(0, before - room)
    clip = surface.get_clip()
    surface.set_clip(rect.inflate(-20, -4))
    typed = letters.render(line.text or " ")
    surface.blit(typed, typed.get_rect(left=left - shift, centery=middle))
    end = left - shift + letters.width(line.text)
    if line.hint:
        letters.text(surface, line.hint, (end, middle), color=theme.FAINT)
    elif not line.text:
        letters.text(
            surface, "say what happens next; Tab completes", (left + 8, middle), color=theme.FAINT
        )
    caret = left - shift + before
    pygame.draw.line(surface, theme.ACCENT, (caret, middle - 10), (caret, middle + 10), 2)
    surface.set_clip(clip)
