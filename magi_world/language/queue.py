"""Commands that wait for their chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from magi_world.config import require
from magi_world.language.reading import Reading, Step


@dataclass(frozen=True)
class CommandQueue:
    """What a world was told and has not done yet. It never changes: every call gives a new one.

    steps: not begun yet.
    command: in force, the one of the chunk that `next` was called for last.
    left: chunks that it goes on for after that one; None is without an end.
    said: what the last sentence meant, for "again".
    rest: what follows when all is done; None stays with the command in force.
    """

    steps: tuple[Step, ...] = ()
    command: str | None = None
    left: int | None = 0
    said: tuple[Step, ...] = ()
    rest: str | None = None

    @property
    def active(self) -> bool:
        """Whether `next` has something to say."""
        return self.left != 0 or bool(self.steps) or self.rest is not None

    @property
    def to_come(self) -> tuple[Step, ...]:
        """What comes after this chunk; a command that has begun with the chunks it has left."""
        if self.command is None or not self.left:
            return self.steps
        return (Step(self.command, self.left), *self.steps)

    @property
    def names(self) -> tuple[str, ...]:
        """The commands of `to_come`."""
        return tuple(step.command for step in self.to_come)

    def say(self, reading: Reading) -> CommandQueue:
        """After a text; one that was not understood changes nothing."""
        if not reading.obeyed:
            return self
        return replace(self, steps=reading.steps, left=0, said=reading.steps)

    def next(self) -> tuple[str | None, CommandQueue]:
        """The command of the next chunk, and the queue after it; None goes on as before."""
        if self.left is None:
            return self.command, self
        if self.left:
            return self.command, replace(self, left=self.left - 1)
        if self.steps:
            first, *others = self.steps
            left = None if first.chunks is None else first.chunks - 1
            return first.command, replace(
                self, steps=tuple(others), command=first.command, left=left
            )
        if self.rest is not None:
            return self.rest, replace(self, command=self.rest)
        return None, self

    def told(self, command: str) -> CommandQueue:
        """After a chunk under a command that did not come from here: nothing else is to come."""
        return replace(self, steps=(), command=command, left=None)

    def drop(self, index: int) -> CommandQueue:
        """Without one of the steps `to_come`; what has begun ends with its present chunk."""
        steps = self._checked(index)
        return self._with(steps[:index] + steps[index + 1 :])

    def edit(self, index: int, step: Step) -> CommandQueue:
        """With another step in the place of one of those `to_come`."""
        steps = self._checked(index)
        return self._with((*steps[:index], step, *steps[index + 1 :]))

    def clear(self) -> CommandQueue:
        """Nothing is to come."""
        return replace(self, steps=(), left=0)

    def to_record(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "steps": [[s.command, s.chunks] for s in self.steps],
            "command": self.command,
            "left": self.left,
            "said": [[s.command, s.chunks] for s in self.said],
            "rest": self.rest,
        }

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> CommandQueue:
        """What `to_record` gave."""
        steps, said = (tuple(Step(c, n) for c, n in record[name]) for name in ("steps", "said"))
        return CommandQueue(steps, record["command"], record["left"], said, record["rest"])

    def _with(self, steps: tuple[Step, ...]) -> CommandQueue:
        return replace(self, steps=steps, left=0)

    def _checked(self, index: int) -> tuple[Step, ...]:
        steps = self.to_come
        require(
            0 <= index < len(steps),
            f"index is {index}; {len(steps)} steps are to come, counted from 0",
        )
        return steps


def understood(reading: Reading | None, queue: CommandQueue) -> dict[str, Any]:
    """``info["understood"]``: of the text said last, or of the command in force if none was."""
    if reading is None:
        command, confidence = queue.command, 0.0 if queue.command is None else 1.0
    else:
        command, confidence = reading.command, reading.confidence
    return {"command": command, "confidence": float(confidence), "queue": list(queue.names)}
