"""Above the controls: the world's name, who steers, what is on, what was said and what comes."""

from __future__ import annotations

import pygame

from magi_world.demos.window import theme
from magi_world.demos.window.brush import Brush
from magi_world.demos.window.controllers import HUMAN
from magi_world.demos.window.desk import Desk
from magi_world.demos.window.layout import Layout
from magi_world.demos.window.player import Player
from magi_world.demos.window.theme import Color
from magi_world.language import Reading

BUTTON = 34


def draw_header(brush: Brush, layout: Layout, desk: Desk) -> None:
    """Name and description, and the buttons of the window."""
    rect, letters = layout.header, brush.letters
    middle = rect.top + 17 if layout.column else rect.centery
    right = _window_buttons(brush, rect, middle, desk)
    opened = desk.player.opened
    name = "magi-world" if opened is None else opened.spec.name
    room = right - rect.left - 12
    place = letters.text(
        brush.surface, letters.clipped(name, room, "title"), (rect.left, middle), "title"
    )
    if layout.column:
        about = opened.spec.description if opened is not None else "a live video world that obeys"
        lines = letters.wrapped(about, rect.width, "small")
        for i, line in enumerate(lines[:2]):
            words = line if i == 0 or len(lines) < 3 else letters.clipped(line + " ...", rect.width)
            spot = (rect.left, rect.top + 50 + 20 * i)
            letters.text(brush.surface, words, spot, "small", theme.DIM)
    else:
        _draw_pills(brush, place.right + 16, middle, right - 12, desk)


def _window_buttons(brush: Brush, rect: pygame.Rect, middle: int, desk: Desk) -> int:
    """Where they begin."""
    left = rect.right
    buttons = (
        ("full", lambda: setattr(desk, "fullscreen", not desk.fullscreen), "Full screen (F11)"),
        ("help", lambda: desk.show("help"), "All keys (F1)"),
        ("figures", lambda: setattr(desk, "hud", not desk.hud), "Figures (H)"),
        ("worlds", lambda: desk.show("worlds"), "Another world (M)"),
    )
    for icon, does, tip in buttons:
        left -= BUTTON
        on = theme.ACCENT if icon == "figures" and desk.hud else None
        place = pygame.Rect(left, middle - BUTTON // 2, BUTTON, BUTTON)
        brush.button(icon, place, does, icon=icon, tip=tip, color=on)  # type: ignore[arg-type]
        left -= 6
    return left


def draw_status(brush: Brush, layout: Layout, desk: Desk) -> None:
    """Who steers, the score, the command that is shown and the one that comes."""
    rect, letters, player = layout.status, brush.letters, desk.player
    if player.moment is None or rect.width < 60:
        return
    if layout.column is None:
        _draw_now(brush, rect, rect.centery, player)
        return
    top = rect.top + 13
    left = _draw_charge(brush, rect.left, top, player)
    _draw_pills(brush, left + 8, top, rect.right, desk, charge=False)
    _draw_score(brush, rect.right, top + 34, player)
    letters.text(brush.surface, "NOW", (rect.left, top + 42), "tiny", theme.FAINT)
    words = player.moment.command or "no command"
    room = rect.width - 130
    letters.text(
        brush.surface, letters.clipped(words, room, "large"), (rect.left, top + 66), "large"
    )
    following, color = _following(player)
    label = letters.text(brush.surface, "NEXT", (rect.left, top + 98), "tiny", theme.FAINT)
    words = letters.clipped(following, rect.width - 60)
    letters.text(brush.surface, words, (label.right + 12, top + 97), "body", color)
    if (reading := player.reading) is not None:
        _draw_reading(brush, pygame.Rect(rect.left, top + 116, rect.width, 22), reading)


def _draw_reading(brush: Brush, rect: pygame.Rect, reading: Reading) -> None:
    """What was typed, and behind it what it was understood as."""
    letters, middle = brush.letters, rect.centery
    typed = letters.clipped(f'"{reading.text}"', rect.width * 55 // 100, "small")
    place = letters.text(brush.surface, typed, (rect.left, middle), "small", theme.DIM)
    if not reading.obeyed:
        letters.text(
            brush.surface, "not understood", (place.right + 10, middle), "small", theme.WARN
        )
        return
    x = place.right + 10
    points = [(x, middle - 4), (x + 4, middle), (x, middle + 4)]
    pygame.draw.lines(brush.surface, theme.FAINT, False, points, 2)
    sure = "" if reading.confidence >= 0.995 else f"  {reading.confidence:.0%}"
    words = reading.steps[0].command if len(reading.steps) == 1 else f"{len(reading.steps)} steps"
    room = max(0, rect.right - x - 14)
    letters.text(
        brush.surface, letters.clipped(words + sure, room, "small"), (x + 14, middle), "small",
        theme.GOOD,
    )  # fmt: skip


def _draw_now(brush: Brush, rect: pygame.Rect, middle: int, player: Player) -> None:
    """In one line: the command that is shown, an arrow, the one that comes, what was typed."""
    moment, letters = player.moment, brush.letters
    assert moment is not None, "the caller has looked"
    if player.reading is not None and rect.width > 420:
        half = pygame.Rect(rect.centerx, rect.top, rect.width // 2, rect.height)
        _draw_reading(brush, half, player.reading)
        rect = pygame.Rect(rect.left, rect.top, rect.width // 2 - 16, rect.height)
    following, color = _following(player)
    words = letters.clipped(moment.command or "no command", rect.width // 2 - 30)
    place = letters.text(brush.surface, words, (rect.left, middle))
    x = place.right + 12
    points = [(x, middle - 5), (x + 5, middle), (x, middle + 5)]
    pygame.draw.lines(brush.surface, theme.FAINT, False, points, 2)
    words = letters.clipped(following, max(0, rect.right - x - 18))
    letters.text(brush.surface, words, (x + 18, middle), color=color)


def _following(player: Player) -> tuple[str, Color]:
    """The command for the next chunk, and its colour: green where it is news."""
    moment = player.moment
    assert moment is not None, "the caller has looked"
    if player.controllers.agent is not None and player.planned is None:
        return f"{player.controllers.name} is thinking", theme.AGENT
    words = player.command or "no command"
    late = player.lands is not None and player.lands > moment.index + 1
    if player.controllers.agent is not None:
        return words, theme.AGENT
    if words == moment.command:
        return "the same", theme.DIM
    return f"{words}{', in a moment' if late else ''}", theme.GOOD


def _draw_charge(brush: Brush, left: int, middle: int, player: Player) -> int:
    """Who steers, and a button for whoever could; where it ends."""
    charge, other = player.controllers.name, player.controllers.following
    human = charge == HUMAN
    color = theme.ACCENT if human else theme.AGENT
    words = "You steer" if human else f"{charge} steers"
    right = brush.letters.pill(brush.surface, words, left, middle, color).right
    if other == charge:
        return right
    if not human:
        place = pygame.Rect(right + 8, middle - 15, brush.width("Take over"), 30)
        tip = "So does any key that steers; C goes on to the next"
        brush.button("take over", place, lambda: player.hand_to(HUMAN), "Take over", tip=tip)
        return place.right
    text = f"Let {other} play"
    width = brush.width(text, ("C",))
    place = pygame.Rect(right + 8, middle - 15, width, 30)
    brush.button("hand over", place, player.hand_over, text, keys=("C",), tip="Hand over (C)")
    return place.right


def _draw_pills(
    brush: Brush, left: int, middle: int, right: int, desk: Desk, charge: bool = True
) -> None:
    if charge and desk.player.moment is not None:
        if left + 190 < right:
            left = _draw_charge(brush, left, middle, desk.player) + 8
        if left + 220 < right:
            _draw_score(brush, right, middle, desk.player)
    for word, color in states(desk):
        if left + brush.letters.width(word, "small") + 18 > right:
            return
        left = brush.letters.pill(brush.surface, word, left, middle, color).right + 8


def states(desk: Desk) -> list[tuple[str, Color]]:
    """What is going on beside the play itself."""
    player, found = desk.player, []
    if desk.film is not None:
        found.append(("filming", theme.BAD))
    if player.work:
        found.append((player.work, theme.WARN))
    elif player.futures is not None:
        found.append(("what if", theme.AGENT))
    elif player.playback.paused and player.moment is not None:
        found.append(("one chunk" if player.playback.running else "paused", theme.WARN))
    elif player.playback.waited > 0.4:
        done, total = player.runner.progress
        found.append((f"dreaming {done} / {total}" if total else "dreaming", theme.WARN))
    return found


def score_words(player: Player) -> list[tuple[str, str]]:
    """(label, number) of what this world counts; empty where it counts nothing or nothing yet."""
    score = None if player.moment is None else player.moment.score
    counted = (
        [] if score is None else [(n, str(count)) for n, count in score.counts.items() if count]
    )
    if score is None or not counted:
        return []
    return [*counted, ("points", f"{score.points:g}")]


def _draw_score(brush: Brush, right: int, middle: int, player: Player) -> None:
    """At the right, the points last and largest; what has just risen shines."""
    fresh = [event for event, _ in player.flashes.current(player.now)]
    for label, number in reversed(score_words(player)):
        bright = label in fresh or (label == "points" and fresh)
        color = theme.GOOD if bright else theme.TEXT
        place = brush.letters.text(brush.surface, number, (right, middle), "large", color, "right")
        name = brush.letters.text(
            brush.surface, label, (place.left - 6, middle + 2), "tiny", theme.FAINT, "right"
        )
        right = name.left - 16
