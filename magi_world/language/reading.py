"""What a text was read as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from magi_world.config import require

MAX_CHUNKS = 100_000  # of one step; half a day of video


@dataclass(frozen=True)
class Step:
    """A command and how long it lasts.

    chunks: None is until something else is said.
    """

    command: str
    chunks: int | None = None

    def __post_init__(self) -> None:
        require(bool(self.command.strip()), f"Step.command is {self.command!r}; it must be a text")
        require(
            self.chunks is None or 0 < self.chunks <= MAX_CHUNKS,
            f"Step.chunks is {self.chunks!r}; it must be 1 .. {MAX_CHUNKS}, or None for no end",
        )

    def __str__(self) -> str:
        if self.chunks is None:
            return self.command
        return f"{self.command} ({self.chunks} chunk{'s' if self.chunks > 1 else ''})"


@dataclass(frozen=True)
class Reading:
    """What a text means to a world; see `magi_world.language`."""

    text: str
    command: str | None
    confidence: float
    steps: tuple[Step, ...]
    answer: str

    @property
    def obeyed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.steps)

    @property
    def plain(self) -> bool:
        """Whether nothing but a command of the world was said, by its name."""
        return len(self.steps) == 1 and self.text == self.command and self.steps[0].chunks is None


def meaning(text: str, confidence: float, steps: Sequence[Step]) -> Reading:
    """The reading of a text that was understood."""
    shown = ", then ".join(map(str, steps))
    return Reading(text, steps[0].command, round(confidence, 4), tuple(steps), shown)


def refusal(text: str, confidence: float, why: str) -> Reading:
    """The reading of a text that was not."""
    return Reading(text, None, round(confidence, 4), (), why)
