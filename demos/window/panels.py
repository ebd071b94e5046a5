"""What is to be read: name, who steers, score, what was said and comes; figures and messages."""

from __future__ import annotations

from collections.abc import Sequence

import pygame
import torch

from magi_world.demos.steering import HUMAN
from magi_world.demos.window import jobs, theme
from magi_world.demos.window.brush import Brush, Layout
from magi_world.demos.window.player import Player
from magi_world.demos.window.state import AppState
from magi_world.demos.window.theme import Color
from magi_world.demos.window.watchers import Notice
from magi_world.demos.window.worker import resident
from magi_world.language import Reading

BUTTON = 34


def draw_header(brush: Brush, layout: Layout, state: AppState) -> None:
    rect, letters = layout.header, brush.letters
    middle = rect.top + 17 if layout.column else rect.centery
    right = _window_buttons(brush, rect, middle, state)
    opened = state.player.opened
    name = "magi-world" if opened is None else opened.spec.name
    room = right - rect.left - 12
    place = brush.text(name, (rect.left, middle), "title", fit=room)
    if layout.column:
        about = opened.spec.description if opened is not None else "a live video world that obeys"
        lines = letters.wrapped(about, rect.width, "small")
        for i, line in enumerate(lines[:2]):
            words = line if i == 0 or len(lines) < 3 else letters.clipped(line + " ...", rect.width)
            spot = (rect.left, rect.top + 50 + 20 * i)
            brush.text(words, spot, "small", theme.DIM)
    else:
        _draw_pills(brush, place.right + 16, middle, right - 12, state)


def _window_buttons(brush: Brush, rect: pygame.Rect, middle: int, state: AppState) -> int:
    left = rect.right
    buttons = (
        ("full", lambda: setattr(state, "fullscreen", not state.fullscreen), "Full screen (F11)"),
        ("help", lambda: state.show("help"), "All keys (F1)"),
        ("figures", lambda: setattr(state, "hud", not state.hud), "Figures (H)"),
        ("worlds", lambda: state.show("worlds"), "Another world (M)"),
    )
    for icon, does, tip in buttons:
        left -= BUTTON
        on = theme.ACCENT if icon == "figures" and state.hud else None
        place = pygame.Rect(left, middle - BUTTON // 2, BUTTON, BUTTON)
        brush.button(icon, place, does, icon=icon, tip=tip, color=on)  # type: ignore[arg-type]
        left -= 6
    return left


def draw_status(brush: Brush, layout: Layout, state: AppState) -> None:
    """Who steers, the score, the command that is shown and the one that comes."""
    rect, _letters, player = layout.status, brush.letters, state.player
    if player.moment is None or rect.width < 60:
        return
    if layout.column is None:
        _draw_now(brush, rect, rect.centery, player)
        return
    top = rect.top + 13
    left = _draw_charge(brush, rect.left, top, player)
    _draw_pills(brush, left + 8, top, rect.right, state, charge=False)
    _draw_score(brush, rect.right, top + 34, player)
    brush.text("NOW", (rect.left, top + 42), "tiny", theme.FAINT)
    words = player.moment.command or "no command"
    room = rect.width - 130
    brush.text(words, (rect.left, top + 66), "large", fit=room)
    following, color = _following(player)
    label = brush.text("NEXT", (rect.left, top + 98), "tiny", theme.FAINT)
    brush.text(following, (label.right + 12, top + 97), "body", color, fit=rect.width - 60)
    if (reading := player.reading) is not None:
        _draw_reading(brush, pygame.Rect(rect.left, top + 116, rect.width, 22), reading)


def _draw_reading(brush: Brush, rect: pygame.Rect, reading: Reading) -> None:
    _letters, middle = brush.letters, rect.centery
    place = brush.text(
        f'"{reading.text}"', (rect.left, middle), "small", theme.DIM, fit=rect.width * 55 // 100
    )
    if not reading.obeyed:
        brush.text("not understood", (place.right + 10, middle), "small", theme.WARN)
        return
    x = place.right + 10
    points = [(x, middle - 4), (x + 4, middle), (x, middle + 4)]
    pygame.draw.lines(brush.surface, theme.FAINT, False, points, 2)
    sure = "" if reading.confidence >= 0.995 else f"  {reading.confidence:.0%}"
    words = reading.steps[0].command if len(reading.steps) == 1 else f"{len(reading.steps)} steps"
    room = max(0, rect.right - x - 14)
    brush.text(words + sure, (x + 14, middle), "small", theme.GOOD, fit=room)  # fmt: skip


def _draw_now(brush: Brush, rect: pygame.Rect, middle: int, player: Player) -> None:
    """In one line: the command that is shown, an arrow, the one that comes, what was typed."""
    moment, _letters = player.moment, brush.letters
    assert moment is not None, "the caller has looked"
    if player.reading is not None and rect.width > 420:
        half = pygame.Rect(rect.centerx, rect.top, rect.width // 2, rect.height)
        _draw_reading(brush, half, player.reading)
        rect = pygame.Rect(rect.left, rect.top, rect.width // 2 - 16, rect.height)
    following, color = _following(player)
    place = brush.text(
        moment.command or "no command", (rect.left, middle), fit=rect.width // 2 - 30
    )
    x = place.right + 12
    points = [(x, middle - 5), (x + 5, middle), (x, middle + 5)]
    pygame.draw.lines(brush.surface, theme.FAINT, False, points, 2)
    brush.text(following, (x + 18, middle), color=color, fit=max(0, rect.right - x - 18))


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
    brush: Brush, left: int, middle: int, right: int, state: AppState, charge: bool = True
) -> None:
    if charge and state.player.moment is not None:
        if left + 190 < right:
            left = _draw_charge(brush, left, middle, state.player) + 8
        if left + 220 < right:
            _draw_score(brush, right, middle, state.player)
    for word, color in states(state):
        if left + brush.letters.width(word, "small") + 18 > right:
            return
        left = brush.letters.pill(brush.surface, word, left, middle, color).right + 8


def states(state: AppState) -> list[tuple[str, Color]]:
    player, found = state.player, []
    if state.film is not None:
        found.append(("filming", theme.BAD))
    if player.work:
        found.append((player.work, theme.WARN))
    elif player.futures is not None:
        found.append(("what if", theme.AGENT))
    elif player.playback.paused and player.moment is not None:
        still = "resting" if player.playback.resting else "paused"
        found.append(("one chunk" if player.playback.running else still, theme.WARN))
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
        place = brush.text(number, (right, middle), "large", color, "right")
        name = brush.text(label, (place.left - 6, middle + 2), "tiny", theme.FAINT, "right")
        right = name.left - 16


Row = tuple[str, str]


def figures(player: Player) -> list[tuple[str, list[Row]]]:
    """Groups of (label, value)."""
    opened, moment = player.opened, player.moment
    if opened is None or moment is None:
        return []
    spec, playback = opened.spec, player.playback
    pace = playback.pace
    p50, p95 = pace.latency(50), pace.latency(95)
    height, width = spec.frame_size
    done, total = player.runner.progress
    making = isinstance(player.runner.job, jobs.Step | jobs.Imagine)
    return [
        (
            "Pace",
            [
                ("world", f"{spec.fps:g} fps"),
                ("shown", f"{player.shown.fps(player.now):.1f} fps"),
                ("generated", _or_dash(pace.generated_fps, "{:.1f} fps")),
                ("chunk p50", _or_dash(p50, "{:.0f} ms", 1000)),
                ("chunk p95", _or_dash(p95, "{:.0f} ms", 1000)),
                ("command to picture", _or_dash(player.delay.last, "{:.2f} s")),
                ("its median", _or_dash(player.delay.median, "{:.2f} s")),
            ],
        ),
        (
            "Chunk",
            [
                ("shown", f"{moment.index}"),
                ("frame", f"{playback.frame_number + 1} / {len(moment.shown_frames)}"),
                ("next one", _next(player)),
                ("denoising", f"{done} / {total or opened.steps_per_chunk}" if making else "-"),
            ],
        ),
        (
            "World",
            [
                ("seed", f"{moment.seed}"),
                ("picture", f"{width} x {height}, {spec.frames_per_chunk} a chunk"),
                ("device", str(opened.world.device)),
                ("memory", memory(opened.world.device)),
                ("cache", _bytes(opened.world.cache_bytes)),
                ("rewind", f"{playback.timeline.position} of {len(playback.timeline) - 1}"),
            ],
        ),
    ]


def memory(device: torch.device) -> str:
    host = resident()
    parts = [] if host is None else [_bytes(host)]
    if device.type == "cuda":
        parts.append(f"{_bytes(torch.cuda.memory_allocated(device))} GPU")
    return ", ".join(parts) or "-"


def _next(player: Player) -> str:
    if player.playback.ahead is not None:
        return "ready"
    job = player.runner.job
    if isinstance(job, jobs.Step):
        return "late" if player.playback.stalled else "being made"
    return "stopped" if not player.playback.running else "not asked for yet"


def _or_dash(value: float | None, form: str, factor: float = 1) -> str:
    return "-" if value is None else form.format(value * factor)


def _bytes(count: int) -> str:
    if count >= 10 << 30:
        return f"{count / 2**30:.0f} GB"
    return f"{count / 2**30:.2f} GB" if count >= 1 << 30 else f"{count / 2**20:.0f} MB"


HUD_WIDTH = 250


def draw_figures(brush: Brush, area: pygame.Rect, player: Player) -> None:
    """The figures, at the top right of the picture, and how far the next chunk is."""
    groups = figures(player)
    if not groups:
        return
    row, gap, surface = 20, 12, brush.surface
    height = sum(26 + row * len(rows) + gap for _, rows in groups) + 22
    plate = pygame.Rect(0, area.top + 12, min(HUD_WIDTH, area.width), min(height, area.height - 24))
    plate.right = area.right - 12
    theme.panel(surface, plate, alpha=225)
    clip = surface.get_clip()
    surface.set_clip(plate.inflate(-2, -2))
    left, right, top = plate.left + 14, plate.right - 14, plate.top + 20
    for title, rows in groups:
        brush.text(title, (left, top), "small", theme.ACCENT)
        top += 23
        for label, value in rows:
            brush.text(label, (left, top), "tiny", theme.DIM)
            brush.text(value, (right, top), "tiny", theme.TEXT, "right")
            top += row
        if title == "Chunk":
            done, total = player.runner.progress
            making = pygame.Rect(left, top - 6, right - left, 4)
            theme.bar(surface, making, done / total if total else 0.0, theme.ACCENT)
            top += 6
        top += gap - 4
    surface.set_clip(clip)


def draw_notices(brush: Brush, area: pygame.Rect, notices: Sequence[Notice]) -> None:
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
            brush.text(line, (rect.left + 24, rect.top + 21 + 22 * i))
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
