"""What is clicked and typed: the commands, the timeline, its buttons, the text line."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pygame

from magi_world.demos.window import theme
from magi_world.demos.window.brush import Brush, Icon, Layout, Spot
from magi_world.demos.window.jobs import Moment
from magi_world.demos.window.state import AppState
from magi_world.demos.window.theme import scaled

ROW, GAP = 34, 8
HINTS = 5  # completions that are listed above the line
THUMB = 112


def draw_commands(brush: Brush, layout: Layout, state: AppState) -> None:
    """Things to try, what waits for its turn, and everything that this world obeys."""
    rect, player = layout.commands, state.player
    if player.moment is None or rect.height < ROW - 4:
        return
    if layout.column is None:
        left = _draw_queue(brush, rect.left, rect.top, rect.right, state)
        _draw_buttons(brush, pygame.Rect(left, rect.top, rect.right - left, ROW - 4), state)
        return
    clip = brush.surface.get_clip()
    brush.surface.set_clip(rect)
    bottom = rect.bottom - _draw_tips(brush, rect, state)
    top = rect.top
    if player.steering.queue:
        _draw_queue(brush, rect.left, top, rect.right, state)
        top += ROW + 12
    title = "IT OBEYS" if player.futures is None else "OR FOR THE MARKED FUTURE"
    brush.text(title, (rect.left, top + 6), "tiny", theme.FAINT)
    room = pygame.Rect(rect.left, top + 22, rect.width, max(0, bottom - top - 22))
    _draw_buttons(brush, room, state)
    brush.surface.set_clip(clip)


def _draw_queue(brush: Brush, left: int, top: int, right: int, state: AppState) -> int:
    """What was said and has not begun, as chips; where they end."""
    for i, step in enumerate(state.player.steering.queue):
        count = "" if step.chunks is None else f"  x{step.chunks}"
        text = step.command + count
        width = brush.letters.width(text, "small") + 44
        if left + width > right:
            brush.text("...", (left, top + 14), "small", theme.DIM)
            return left + 24
        chip = pygame.Rect(left, top, width, 30)
        brush.button(
            f"chip {i}",
            chip,
            partial(state.edit_step, i),
            text,
            tip="Click to change it, the cross drops it",
            color=theme.GOOD if i == 0 else theme.DIM,
        )
        cross = pygame.Rect(chip.right - 26, chip.top, 26, chip.height)
        brush.spots.add(
            Spot(f"drop {i}", cross, partial(state.player.edit_queue, i, ()), "Drop it")
        )
        _cross(brush.surface, cross.center)
        left = chip.right + GAP
    return left


def _cross(surface: pygame.Surface, center: tuple[int, int]) -> None:
    x, y = center
    for points in (((-4, -4), (4, 4)), ((4, -4), (-4, 4))):
        ends = [(x + a, y + b) for a, b in points]
        pygame.draw.line(surface, theme.DIM, ends[0], ends[1], 2)


def _draw_buttons(brush: Brush, room: pygame.Rect, state: AppState) -> None:
    """The commands of the world; the one that is shown is marked."""
    player = state.player
    assert player.opened is not None, "the caller has looked"
    assert player.moment is not None, "the caller has looked"
    shown, coming = player.moment.command, player.command
    if (futures := player.futures) is not None:
        shown = coming = futures.commands[futures.selected]
    names = list(player.opened.spec.command_names)
    if not names:
        words = "any text: press Enter and describe what happens"
        brush.text(words, (room.left, room.top + 15), color=theme.DIM)
    caps = {name: _caps(player.steering.keymap.keys_of(name)) for name in names}
    sizes = {name: min(brush.width(name, caps[name]), room.width) for name in names}
    places = _flow([sizes[name] for name in names], room)
    if len(places) < len(names):
        # Not all of them fit: goals come first, arrows are known, and what is left out is said.
        names.sort(key=lambda name: not player.steering.keymap.lasting(name))
        rest = pygame.Rect(room.left, room.top, room.width, max(0, room.height - ROW))
        places = _flow([sizes[name] for name in names], rest if room.height > 2 * ROW else room)
    for name, place in zip(names, places, strict=False):
        color = theme.ACCENT if name == shown else theme.GOOD if name == coming else None
        brush.button(
            f"command {name}",
            place,
            partial(state.tap, name),
            name,
            keys=caps[name],
            color=color,
        )
    if left := len(names) - len(places):
        bottom = max((place.bottom for place in places), default=room.top)
        if bottom + 26 <= room.bottom:
            words = f"and {left} more: use their keys or type them, F1 lists all"
            brush.text(words, (room.left, bottom + 16), "tiny", theme.FAINT, fit=room.width)


def _caps(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Key caps of a command; of a chord, the arrow that walks comes first, as the words have it."""
    chord = keys[0].split("+") if keys else []
    return tuple(sorted(chord, key=lambda key: key not in ("up", "down")))


def _flow(widths: Sequence[int], room: pygame.Rect) -> list[pygame.Rect]:
    """Places for buttons, row by row; fewer of them where there is no room for all."""
    places, left, top = list[pygame.Rect](), room.left, room.top
    for width in widths:
        if left + width > room.right and left > room.left:
            left, top = room.left, top + ROW + 1
        if top + ROW - 4 > room.bottom:
            break
        places.append(pygame.Rect(left, top, width, ROW - 4))
        left += width + GAP
    return places


def _draw_tips(brush: Brush, rect: pygame.Rect, state: AppState) -> int:
    """The card with three things to try, at the bottom; its height."""
    tips = state.tips.shown(state.player, state.say)
    if not tips or state.tips.closed or state.player.futures is not None:
        return 0
    card = pygame.Rect(rect.left, 0, rect.width, 44 + 30 * len(tips))
    card.bottom = rect.bottom
    theme.panel(brush.surface, card, theme.mixed(theme.ACCENT, theme.PANEL, 0.08), theme.EDGE, 12)
    brush.text("Try this", (card.left + 16, card.top + 20), "body")
    cross = pygame.Rect(card.right - 36, card.top + 4, 32, 32)
    brush.spots.add(Spot("close tips", cross, state.tips.close, "I know"))
    _cross(brush.surface, cross.center)
    middle = card.top + 50
    for tip in tips:
        line = pygame.Rect(card.left + 8, middle - 15, card.width - 16, 30)
        if brush.spots.add(Spot(f"tip {tip.name}", line, partial(state.try_tip, tip))):
            theme.panel(brush.surface, line, theme.PANEL_HIGH, None, 8)
        done = tip.name in state.tips.tried
        left = card.left + 16
        for key in tip.keys:
            left = brush.cap(key, left + 58, middle) and left + 58
        color = theme.FAINT if done else theme.TEXT
        place = brush.text(
            tip.words, (left + 12, middle), "small", color, fit=card.right - left - 60
        )
        if done:
            x, y = place.right + 14, middle
            tick = [(x - 5, y), (x - 1, y + 4), (x + 6, y - 5)]
            pygame.draw.lines(brush.surface, theme.GOOD, False, tick, 2)
        middle += 30
    return card.height + 12


def draw_timeline(brush: Brush, layout: Layout, state: AppState) -> None:
    """The slider: what can be gone back to, and a picture of what is under the mouse."""
    rect, player = layout.timeline, state.player
    timeline = player.playback.timeline
    if not len(timeline) or player.futures is not None:
        return
    last = len(timeline) - 1
    spot = Spot("timeline", rect, tip="", drags=lambda share: state.seek(round(share * last)))
    hot = brush.spots.add(spot)
    share = timeline.position / max(1, last)
    groove = pygame.Rect(rect.left, rect.centery - 3, rect.width, 6)
    color = theme.ACCENT if timeline.at_end else theme.WARN
    theme.bar(brush.surface, groove, share, color)
    knob = (rect.left + round(rect.width * share), rect.centery)
    pygame.draw.circle(brush.surface, theme.TEXT, knob, 8 if hot or brush.spots.dragging else 6)
    if hot and not brush.spots.dragging and brush.spots.mouse is not None:
        under = (brush.spots.mouse[0] - rect.left) / max(1, rect.width)
        place = round(min(max(under, 0.0), 1.0) * last)
        _draw_thumb(brush, rect, timeline.moments[place], last - place)


def _draw_thumb(brush: Brush, rect: pygame.Rect, moment: Moment, back: int) -> None:
    frame: np.ndarray = moment.frames[-1]
    width = round(THUMB * frame.shape[1] / frame.shape[0])
    assert brush.spots.mouse is not None, "the mouse is on the slider"
    card = pygame.Rect(0, 0, max(width, 150) + 12, THUMB + 34)
    card.midbottom = (brush.spots.mouse[0], rect.top - 8)
    card.clamp_ip(brush.surface.get_rect())
    theme.panel(brush.surface, card, theme.PANEL, theme.EDGE)
    picture = scaled(frame, (width, THUMB))
    brush.surface.blit(picture, picture.get_rect(midtop=(card.centerx, card.top + 6)))
    ago = "now" if back == 0 else f"{back} back"
    words = brush.letters.clipped(f"{ago}: {moment.command}", card.width - 12, "tiny")
    place = (card.centerx, card.bottom - 14)
    brush.text(words, place, "tiny", theme.DIM, "center")


def draw_transport(brush: Brush, layout: Layout, state: AppState) -> None:
    """Pause, step, back and forward; futures, picture, film, slots."""
    rect, player = layout.transport, state.player
    if player.moment is None or player.futures is not None:
        return
    paused = player.playback.paused
    filming = state.film is not None
    buttons: tuple[tuple[str, Icon, object, str, theme.Color | None], ...] = (
        ("back", "back", lambda: player.rewind(1), "Back one chunk ([)", None),
        (
            "pause",
            "play" if paused else "pause",
            lambda: player.pause(),
            "Go on (Space)" if paused else "Pause (Space)",
            theme.WARN if paused else None,
        ),
        ("step", "step", player.step_once, "Play one chunk (.)", None),
        ("forward", "forward", lambda: player.rewind(-1), "Forward one chunk (])", None),
        ("what if", "fork", state.what_if, "What if: four futures (F)", None),
        ("photo", "photo", lambda: state.screenshot(), "Save this picture (P)", None),
        (
            "film",
            "stop" if filming else "record",
            state.record,
            "Stop filming (R)" if filming else "Film what you see (R)",
            theme.BAD if filming else None,
        ),
        ("slots", "slots", lambda: state.show("slots"), "Saved moments (L)", None),
    )
    gap = 6
    width = min(52, (rect.width - gap * (len(buttons) - 1)) // len(buttons))
    for i, (name, icon, does, tip, color) in enumerate(buttons):
        place = pygame.Rect(rect.left + i * (width + gap), rect.top, width, rect.height)
        brush.button(name, place, does, icon=icon, tip=tip, color=color)  # type: ignore[arg-type]


def draw_line(brush: Brush, layout: Layout, state: AppState) -> None:
    """The text line: what is typed, in grey how it could go on, and above it what it could be."""
    rect, line, letters, surface = layout.line, state.line, brush.letters, brush.surface
    hot = brush.spots.add(Spot("line", rect, state.write))
    edge = theme.ACCENT if line.open else theme.FAINT if hot else theme.EDGE
    theme.panel(surface, rect, theme.BACK, edge, radius=12)
    left, middle = rect.left + 16, rect.centery
    if not line.open:
        words = "Say what happens next"
        if state.player.futures is not None:
            words = "Say something else for the marked future"
        width = rect.width - 100
        brush.text(words, (left, middle), color=theme.FAINT, fit=width)
        brush.cap("return", rect.right - 12, middle)
        return
    before = letters.width(line.text[: line.cursor])
    room = rect.width - 44
    shift = max(0, before - room)
    clip = surface.get_clip()
    surface.set_clip(rect.inflate(-20, -4))
    typed = letters.render(line.text or " ")
    surface.blit(typed, typed.get_rect(left=left - shift, centery=middle))
    end = left - shift + letters.width(line.text)
    if line.hint:
        brush.text(line.hint, (end, middle), color=theme.FAINT)
    elif not line.text:
        brush.text(
            "anything; Enter sends it, Esc leaves", (left + 8, middle), color=theme.FAINT, fit=room
        )
    caret = left - shift + before
    pygame.draw.line(surface, theme.ACCENT, (caret, middle - 11), (caret, middle + 11), 2)
    surface.set_clip(clip)
    if line.text:
        _draw_completions(brush, rect, state)


def _draw_completions(brush: Brush, line: pygame.Rect, state: AppState) -> None:
    found = state.line.completions()[:HINTS]
    if not found:
        return
    card = pygame.Rect(line.left, 0, line.width, 30 * len(found) + 12)
    card.bottom = line.top - 8
    theme.panel(brush.surface, card, theme.PANEL, theme.EDGE, 10)
    for i, text in enumerate(found):
        row = pygame.Rect(card.left + 6, card.top + 6 + 30 * i, card.width - 12, 30)
        if brush.spots.add(Spot(f"completion {i}", row, partial(state.choose, text))):
            theme.panel(brush.surface, row, theme.PANEL_HIGH, None, 7)
        brush.text(text, (row.left + 10, row.centery), "small", theme.DIM, fit=row.width - 70)
        if i == 0:
            brush.cap("tab", row.right - 8, row.centery)
