"""What a script says, read as sentences (`magi_world.language`) by the world that it is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from magi_world.language import CommandQueue, Interpreter
from magi_world.session.events import Event, Fork, Keep, Said, Step


@dataclass(frozen=True)
class Told:
    """One future of a script: what it was told, and the command in force."""

    queue: CommandQueue
    command: str | None


class EventReader:
    """Steps that say something, one after the other, as steps that say a command each.

    Args:
        interpreter: of the world.
        where: a line as a message names it, e.g. "tour.yaml, line".
    """

    def __init__(self, interpreter: Interpreter, where: str) -> None:
        self.interpreter, self.where = interpreter, where
        first = interpreter.spec.default_command
        self._told = [Told(CommandQueue(command=first, rest=first), first)]

    def read(self, event: Event, line: int) -> list[Event]:
        """The event; before it what became of each text that is no name of a command.

        Raises:
            ValueError: a text is not understood; the message says why, and names the line.
        """
        if isinstance(event, Fork):
            self._told = self._told * event.futures
        elif isinstance(event, Keep):
            self._told = [self._told[event.future]]
        if not isinstance(event, Step):
            return [event]
        several = isinstance(event.say, tuple)
        texts = event.say if isinstance(event.say, tuple) else [event.say] * len(self._told)
        said = [self._tell(row, text, line, several) for row, text in enumerate(texts)]
        commands = tuple(self._next(row) for row in range(len(self._told)))
        say = commands if several else commands[0] if len(set(commands)) == 1 else commands
        if isinstance(say, tuple) and not any(say):
            say = None
        return [*(one for one in said if one is not None), replace(event, say=say)]

    def _tell(self, row: int, text: str | None, line: int, several: bool) -> Said | None:
        if text is None:
            return None
        told = self._told[row]
        reading = self.interpreter.read(text, told.queue)
        if not reading.obeyed:
            raise ValueError(f"{self.where} {line}: {text!r} is not understood: {reading.answer}")
        # What is said is in force anew, even where it was before.
        self._told[row] = Told(told.queue.say(reading), None)
        return None if reading.plain else Said.of(reading, row if several else None)

    def _next(self, row: int) -> str | None:
        """The command of the next chunk; None goes on with the one in force."""
        told = self._told[row]
        command, queue = told.queue.next()
        self._told[row] = Told(queue, command)
        return None if command == told.command else command


def read_events(
    events: Sequence[Event], lines: Sequence[int], interpreter: Interpreter, where: str
) -> tuple[tuple[Event, ...], tuple[int, ...]]:
    """All events of a script and their lines, read.

    Raises:
        ValueError: as `EventReader.read`.
    """
    reader = EventReader(interpreter, where)
    read = [(e, n) for event, n in zip(events, lines, strict=True) for e in reader.read(event, n)]
    return tuple(e for e, _ in read), tuple(n for _, n in read)
