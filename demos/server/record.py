"""What a visitor did, as a session file: every line is on disk before the next chunk is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from magi_world.demos.server.past import Moment
from magi_world.language import Reading
from magi_world.session.events import (
    Event,
    Fork,
    Keep,
    Load,
    Note,
    Reset,
    Rewind,
    Said,
    Save,
    Step,
    file_digest,
)
from magi_world.session.session import SessionWriter
from magi_world.world.snapshot import Snapshot
from magi_world.world.world import World

NOTE = "served in a batch; a replay of this world alone may differ in the last bit"


class Record:
    """One file for each world that a visitor opens, begun with the first reset."""

    def __init__(self, path: Path, alone: World, source: str) -> None:
        """``alone``: a world of one row, for the header; ``source``: what it was loaded by."""
        self.path = path
        self._alone, self._source = alone, source
        self._writer: SessionWriter | None = None
        self._saved: set[int] = set()
        self._rewound: int | None = None

    def begun(
        self, seed: int, scene: str | None, start: int | Literal["text"] | None = None
    ) -> None:
        """A reset."""
        if self._writer is None:
            self._writer = SessionWriter(self.path, self._alone, self._source, digests=False)
            self._writer.write(Note(NOTE))
        self._rewound = None
        self._write(Reset((seed,), scene, start))

    def rewound(self, index: int) -> None:
        """Where the visitor looks; it is written when play goes on from there."""
        self._rewound = index

    def stepped(self, moment: Moment, steer: Literal["now", "queue"] = "now") -> None:
        """A chunk."""
        self._go_back()
        self._write(step_of([moment.state], steer))

    def heard(self, reading: Reading) -> None:
        """What was typed, and what it was read as."""
        self._write(Said.of(reading))

    def saved(self, slot: int) -> None:
        """A slot."""
        self._go_back()
        self._saved.add(slot)
        self._write(Save(str(slot)))

    def loaded(self, slot: int, path: Path) -> None:
        """A slot of this session, or the file of an earlier one."""
        self._rewound = None
        if slot in self._saved:
            self._write(Load(str(slot)))
        else:
            file = str(path.resolve())
            self._write(Load(str(slot), file, file_digest(path)))

    def kept(self, chunks: Sequence[Sequence[Snapshot]], row: int) -> None:
        """A fork, chunk by chunk the states of all its futures, and which of them goes on."""
        self._go_back()
        self._write(Fork(len(chunks[0])))
        for states in chunks:
            self._write(step_of(states, "now"))
        self._write(Keep(row))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()

    def _go_back(self) -> None:
        if self._rewound is not None:
            self._write(Rewind(self._rewound))
            self._rewound = None

    def _write(self, event: Event) -> None:
        if self._writer is not None:
            self._writer.write(event)


def step_of(states: Sequence[Snapshot], steer: Literal["now", "queue"]) -> Step:
    """The event of the step that led to these states, one for each future."""
    stories = [state.stories[0] for state in states]
    says = [story.command or None for story in stories]
    say = says[0] if len(says) == 1 else tuple(says) if any(says) else None
    return Step(stories[0].steps, say, steer, _merged([story.lands for story in stories]))


def _merged(numbers: list[int]) -> int | tuple[int, ...]:
    return numbers[0] if len(set(numbers)) == 1 else tuple(numbers)
