"""Short messages that appear in the window and go away by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["info", "refused", "error"]
SECONDS: dict[Level, float] = {"info": 4.0, "refused": 7.0, "error": 9.0}


@dataclass(frozen=True)
class Notice:
    """text, how bad, and the time at which it goes."""

    text: str
    level: Level
    until: float


class Notices:
    """The messages that are still shown, the newest last."""

    def __init__(self, most: int = 4) -> None:
        """``most``: how many at a time."""
        self._most = most
        self._notices: list[Notice] = []
        self._now = 0.0

    def tick(self, now: float) -> None:
        """Time passes."""
        self._now = now
        self._notices = [n for n in self._notices if n.until > now]

    def info(self, text: str) -> None:
        """Something was done."""
        self._add(text, "info")

    def refuse(self, text: str) -> None:
        """What a person said was not understood."""
        self._add(text, "refused")

    def error(self, text: str) -> None:
        """Something went wrong."""
        self._add(text, "error")

    def dismiss(self) -> bool:
        """Take errors away; whether there was one."""
        kept = [n for n in self._notices if n.level != "error"]
        found = len(kept) < len(self._notices)
        self._notices = kept
        return found

    @property
    def shown(self) -> tuple[Notice, ...]:
        """What is to be seen now."""
        return tuple(self._notices)

    def _add(self, text: str, level: Level) -> None:
        self._notices = [n for n in self._notices if n.text != text]
        self._notices.append(Notice(text, level, self._now + SECONDS[level]))
        del self._notices[: -self._most]
