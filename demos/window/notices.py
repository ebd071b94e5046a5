"""Short messages that appear in the window and go away by themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Level = Literal["info", "refused", "error"]
LONGEST = 300  # characters
SECONDS: dict[Level, float] = {"info": 4.0, "refused": 7.0, "error": 9.0}


@dataclass(frozen=True)
class Notice:
    """text, how bad, and the time at which it goes; None until somebody could have seen it."""

    text: str
    level: Level
    until: float | None = None


class Notices:
    """The messages that are still shown, the newest last."""

    def __init__(self, most: int = 4) -> None:
        """``most``: how many at a time."""
        self._most = most
        self._notices: list[Notice] = []

    def tick(self, now: float) -> None:
        """Time passes."""
        # What takes long, such as ending a film, must not use up the time of what it reports.
        timed = [
            n if n.until is not None else replace(n, until=now + SECONDS[n.level])
            for n in self._notices
        ]
        self._notices = [n for n in timed if n.until is not None and n.until > now]

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
        self._notices = [n for n in self._notices if n.text != _shortened(text)]
        self._notices.append(Notice(_shortened(text), level))
        del self._notices[: -self._most]


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."
