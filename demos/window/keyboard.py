"""Which key does what: one table, which also makes the help page. Keys have pygame's names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from magi_world.demos.window.state import SLOTS, AppState


@dataclass(frozen=True)
class Shortcut:
    """keys: any of them.    help: what it does, for people; empty is not listed."""

    keys: tuple[str, ...]
    does: Callable[[AppState], None]
    help: str
    group: str
    repeats: bool = False


def _back(state: AppState) -> None:
    state.player.rewind(1)


def _forward(state: AppState) -> None:
    state.player.rewind(-1)


SHORTCUTS = (
    Shortcut(("return", "t", "/"), lambda d: d.line.start(), "type a command", "Steer"),
    Shortcut(("c",), lambda d: d.hand_over(), "hand over: you, script, agent", "Steer"),
    Shortcut(("f",), lambda d: d.what_if(), "what if: four futures", "Steer"),
    Shortcut(("space",), lambda d: d.player.pause(), "pause / go on", "Time"),
    Shortcut((".",), lambda d: d.player.step_once(), "play one chunk", "Time"),
    Shortcut(
        ("[", "backspace", "page up"), lambda d: d.player.rewind(1), "back one chunk", "Time", True
    ),
    Shortcut(("]", "page down"), _forward, "forward one chunk", "Time", True),
    Shortcut(("home",), lambda d: d.player.rewind(10**9), "back to the oldest chunk", "Time"),
    Shortcut(("end",), lambda d: d.player.rewind(-(10**9)), "to the newest chunk", "Time"),
    Shortcut(("n",), lambda d: d.new_seed(), "another place (new seed)", "World"),
    Shortcut(("shift+n",), lambda d: d.new_seed(again=True), "the same from the start", "World"),
    Shortcut(("o",), lambda d: d.line.start("/scene "), "another scene", "World"),
    Shortcut(("m",), lambda d: d.show("worlds"), "pick a world", "World"),
    Shortcut(("l",), lambda d: d.show("slots"), "saved moments: 1 .. 9 loads", "World"),
    Shortcut(("r",), lambda d: d.record(), "film on / off (MP4)", "Keep"),
    Shortcut(("p",), lambda d: d.screenshot(), "picture of the world", "Keep"),
    Shortcut(("shift+p",), lambda d: d.screenshot(window=True), "picture of the window", "Keep"),
    Shortcut(("h",), lambda d: setattr(d, "hud", not d.hud), "figures on / off", "View"),
    Shortcut(("v",), lambda d: setattr(d, "smooth", not d.smooth), "smooth / pixels", "View"),
    Shortcut(("f11",), lambda d: setattr(d, "fullscreen", not d.fullscreen), "full screen", "View"),
    Shortcut(("f1", "shift+/", "?"), lambda d: d.show("help"), "this help", "View"),
    Shortcut(("ctrl+q",), lambda d: setattr(d, "quit", True), "quit (also Esc Esc)", "View"),
)
_SLOT_KEYS = tuple(str(slot) for slot in SLOTS)
_BY_KEY = {key: shortcut for shortcut in SHORTCUTS for key in shortcut.keys}


class Keyboard:
    """Sends keys where they belong: to the text line, an overlay, the world, or a shortcut."""

    def __init__(self, state: AppState) -> None:
        self.state = state

    def press(self, key: str, ctrl: bool = False, shift: bool = False, again: bool = False) -> bool:
        """A key went down; ``again`` if it is only still held. Whether its text must be ignored."""
        state = self.state
        if state.line.open:
            return self._edit(key, ctrl)
        if key == "escape":
            if not again:
                state.escape()
        elif self._in_overlay(key, ctrl) or self._in_fork(key):
            pass
        elif ctrl and key in _SLOT_KEYS:
            if not again:
                state.save(int(key))
        # The world's keys come first; with Ctrl a shortcut can always be reached.
        elif not ctrl and not again and state.key(key):
            pass
        else:
            self._shortcut(key, ctrl, shift, again)
        return True

    def release(self, key: str) -> None:
        self.state.player.release(key)

    def release_all(self) -> None:
        self.state.player.steering.release()

    def _shortcut(self, key: str, ctrl: bool, shift: bool, again: bool) -> None:
        names = [f"shift+{key}"] if shift else []
        names += [f"ctrl+{key}", key] if ctrl else [key]
        for name in names:
            if (shortcut := _BY_KEY.get(name)) is not None:
                if shortcut.repeats or not again:
                    shortcut.does(self.state)
                return

    def _edit(self, key: str, ctrl: bool) -> bool:
        line = self.state.line
        edits: dict[str, Callable[[], None]] = {
            "return": self.state.submit,
            "keypad enter": self.state.submit,
            "enter": self.state.submit,
            "escape": self._leave,
            "tab": line.complete,
            "up": line.older,
            "down": line.newer,
            "left": lambda: line.move(-1),
            "right": lambda: line.move(1) if line.cursor < len(line.text) else line.accept(),
            "home": lambda: line.move(-(10**9)),
            "end": lambda: line.move(10**9),
            "backspace": lambda: line.backspace(word=ctrl),
            "delete": line.delete,
        }
        if ctrl and key in ("u", "w"):
            line.backspace(word=True) if key == "w" else line.start()
        elif key in edits:
            edits[key]()
        else:
            return False
        return True

    def _leave(self) -> None:
        self.state.line.close()
        self.state.changing = None

    def _in_overlay(self, key: str, ctrl: bool) -> bool:
        state = self.state
        if state.overlay == "slots" and key in _SLOT_KEYS:
            (state.save if ctrl else state.load)(int(key))
            return True
        if state.overlay == "worlds":
            if key in ("up", "down") and state.worlds:
                state.picked = (state.picked + (1 if key == "down" else -1)) % len(state.worlds)
                return True
            if key in ("return", "keypad enter", "enter"):
                state.open_picked()
                return True
            if key.isdigit() and 0 < int(key) <= len(state.worlds):
                state.picked = int(key) - 1
                state.open_picked()
                return True
        return False

    def _in_fork(self, key: str) -> bool:
        player, futures = self.state.player, self.state.player.futures
        if futures is None:
            return False
        count = len(futures.commands)
        moves = {"left": -1, "right": 1, "up": -2, "down": 2, "tab": 1}
        if key in moves:
            futures.select(futures.selected + moves[key])
        elif key.isdigit() and 0 < int(key) <= count:
            player.keep(int(key) - 1)
        elif key in ("k", "space"):
            player.keep(futures.selected)
        elif key in ("=", "+", "."):
            self.state.further()
        else:
            return False
        return True
