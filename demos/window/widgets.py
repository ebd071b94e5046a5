"""What is behind the text line and the pictures of worlds. No pygame, no drawing.

Shapes: H, W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from magi_world.io.package import read_package
from magi_world.loading import find_package
from magi_world.world.spec import WorldSpec
from magi_world.world.start import best_start, last_frames

HISTORY = 200


class TextLine:
    """What is being typed. While it is open, keys are letters; while it is closed, they steer."""

    def __init__(self, words: Callable[[], Sequence[str]]) -> None:
        """``words()`` gives all that a line can be completed to, best first."""
        self._words = words
        self.open = False
        self.text = ""
        self.cursor = 0
        self.history: list[str] = []
        self._back = 0
        self._draft = ""
        self._cycle: list[str] = []
        self._turn = 0

    def start(self, text: str = "") -> None:
        self.open = True
        self._set(text)
        self._back, self._draft = 0, ""

    def close(self) -> None:
        """Close; the text is gone."""
        self.open = False
        self._set("")

    def submit(self) -> str:
        """Close and return the text without blanks around it; it goes to the history."""
        text = " ".join(self.text.split())
        if text:
            if text in self.history:
                self.history.remove(text)
            self.history.append(text)
            del self.history[:-HISTORY]
        self.close()
        return text

    def insert(self, text: str) -> None:
        """Type or paste; line breaks and tabs become blanks."""
        clean = "".join(c if c.isprintable() else " " for c in text)
        self._set(
            self.text[: self.cursor] + clean + self.text[self.cursor :], self.cursor + len(clean)
        )

    def backspace(self, word: bool = False) -> None:
        """Delete the character (or word) before the cursor."""
        start = self._word_left() if word else max(0, self.cursor - 1)
        self._set(self.text[:start] + self.text[self.cursor :], start)

    def delete(self) -> None:
        self._set(self.text[: self.cursor] + self.text[self.cursor + 1 :], self.cursor)

    def move(self, characters: int) -> None:
        """Move the cursor; far beyond an end is that end."""
        self.cursor = min(max(self.cursor + characters, 0), len(self.text))
        self._cycle = []

    def older(self) -> None:
        if self._back < len(self.history):
            if self._back == 0:
                self._draft = self.text
            self._back += 1
            self._set(self.history[-self._back])

    def newer(self) -> None:
        if self._back > 0:
            self._back -= 1
            self._set(self.history[-self._back] if self._back else self._draft)

    def complete(self) -> None:
        """Put in the first completion; again, the next one."""
        if self._cycle:
            cycle, turn = self._cycle, (self._turn + 1) % len(self._cycle)
        else:
            cycle, turn = self.completions(), 0
        if cycle:
            self._set(cycle[turn])
            # A single match is final; several may be walked through.
            self._cycle, self._turn = (cycle, turn) if len(cycle) > 1 else ([], 0)

    def accept(self) -> None:
        if self.hint:
            self._set(self.text + self.hint)

    def completions(self) -> list[str]:
        """Words that begin with what was typed, then words that contain it."""
        typed = self.text.casefold().strip()
        words = [w for w in dict.fromkeys(self._words()) if w.casefold() != typed]
        begin = [w for w in words if w.casefold().startswith(typed)]
        inside = [w for w in words if w not in begin and typed in w.casefold()]
        return begin + inside

    @property
    def hint(self) -> str:
        """The rest of the best completion, to be shown in grey; empty if there is none."""
        if not self.text or self.cursor != len(self.text):
            return ""
        for word in self.completions():
            if word.casefold().startswith(self.text.casefold()):
                return word[len(self.text) :]
        return ""

    def _word_left(self) -> int:
        left = self.text[: self.cursor].rstrip()
        return left.rfind(" ") + 1

    def _set(self, text: str, cursor: int | None = None) -> None:
        self.text = text
        self.cursor = len(text) if cursor is None else cursor
        self._cycle = []


@dataclass(frozen=True)
class Preview:
    """What a world is. picture: (H, W, 3) uint8 of its best start; None where it has none."""

    spec: WorldSpec
    picture: np.ndarray | None = None

    @property
    def obeys(self) -> str:
        names = self.spec.command_names
        return f"obeys: {', '.join(names)}" if names else "obeys any text"


def read_preview(name: str) -> Preview:
    """The preview of a shipped or installed world, or of a folder.
    Raises ValueError, OSError: there is no such world, or its files are damaged.
    """
    parts = read_package(find_package(name))
    number = best_start(parts)
    return Preview(parts.spec, None if number is None else last_frames(parts, number)[0])


class Previews:
    """Makes them one at a time when they are first asked for."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._made: dict[str, Future[Preview]] = {}

    def get(self, name: str) -> Preview | None:
        """The preview of a world, once there is one; None before, and where none can be made."""
        if name not in self._made:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="previews")
            self._made[name] = self._pool.submit(read_preview, name)
        made = self._made[name]
        return made.result() if made.done() and made.exception() is None else None

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
