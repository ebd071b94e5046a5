"""A line of text being typed: editing, history, completion. No pygame, no drawing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
        """Open with this text in it."""
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
        """Delete the character under the cursor."""
        self._set(self.text[: self.cursor] + self.text[self.cursor + 1 :], self.cursor)

    def move(self, characters: int) -> None:
        """Move the cursor; far beyond an end is that end."""
        self.cursor = min(max(self.cursor + characters, 0), len(self.text))
        self._cycle = []

    def older(self) -> None:
        """The line said before."""
        if self._back < len(self.history):
            if self._back == 0:
                self._draft = self.text
            self._back += 1
            self._set(self.history[-self._back])

    def newer(self) -> None:
        """The line said after, at last what was being typed."""
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
        """Take the hint."""
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
