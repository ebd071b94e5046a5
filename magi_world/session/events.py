"""What can happen in a session, one frozen dataclass each, and their form as JSON records.

`digest` is a checksum of the frames that followed (`frames_digest`); it is what a replay is
compared with, and it is never needed to replay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np

from magi_world.io.records import Right, build
from magi_world.language import Reading

MAX_FUTURES = 1024


def _is_text(given: str) -> bool:
    # Lone surrogates can be written nowhere.
    return bool(given.strip()) and not any("\ud800" <= c <= "\udfff" for c in given)


Whole = Annotated[int, Right(lambda n: n >= 0, "a whole number from 0 on")]
Wholes = Annotated[tuple[Whole, ...], Right(bool, "a list of whole numbers from 0 on")]
Line = Annotated[str, Right(_is_text, "a text that is not empty")]
Lines = Annotated[tuple[Line | None, ...], Right(bool, "a list of texts")]
PerWorld = Whole | Wholes
Futures = Annotated[
    int, Right(lambda n: 1 <= n <= MAX_FUTURES, f"a whole number from 1 to {MAX_FUTURES:,}")
]
Chance = Annotated[float, Right(lambda x: 0 <= x <= 1, "a number from 0 to 1")]


@dataclass(frozen=True)
class StartFile:
    """A picture or film that a world started from, known by its path and its content.

    path: as the user gave it, or relative to the folder of the session file.
    """

    kind: Literal["image", "video"]
    path: Line
    sha256: Line

    @staticmethod
    def of(path: str | Path, kind: Literal["image", "video"]) -> StartFile:
        """Describe a file. Raises FileNotFoundError: there is no such file."""
        return StartFile(kind, str(path), file_digest(path))


@dataclass(frozen=True)
class Reset:
    """All worlds, or `worlds`, began anew.

    scene: one for all, one per world, or None for the world's own.
    start: number of a start video, "text", a file, or None for the world's choice.
    """

    kind: ClassVar[str] = "reset"
    seeds: Wholes
    scene: Line | Lines | None = None
    start: Whole | Literal["text"] | StartFile | None = None
    worlds: Wholes | None = None
    digest: Line | None = None


@dataclass(frozen=True)
class Step:
    """One chunk was made.

    chunk: its index, per world where they differ.
    say: the command in force, per world where there are several; None goes on as before.
    lands: index of the first chunk that the command conditions, per world where they differ.
    """

    kind: ClassVar[str] = "step"
    chunk: PerWorld
    say: Line | Lines | None = None
    steer: Literal["now", "queue"] = "now"
    lands: PerWorld | None = None
    digest: Line | None = None


@dataclass(frozen=True)
class Rewind:
    """Back to where the world stood when chunk `chunk` had been made (0: just reset)."""

    kind: ClassVar[str] = "rewind"
    chunk: Whole


@dataclass(frozen=True)
class Save:
    """The state was put into a slot: the one of now, or of when chunk `chunk` had been made."""

    kind: ClassVar[str] = "save"
    slot: Line
    chunk: Whole | None = None


@dataclass(frozen=True)
class Load:
    """The state of a slot was taken up; of an earlier session, it lies in a snapshot file."""

    kind: ClassVar[str] = "load"
    slot: Line
    path: Line | None = None
    sha256: Line | None = None


@dataclass(frozen=True)
class Fork:
    """From here the world goes on `futures` ways at once; steps are for all of them."""

    kind: ClassVar[str] = "fork"
    futures: Futures


@dataclass(frozen=True)
class Keep:
    """One future of the fork goes on, the others are gone."""

    kind: ClassVar[str] = "keep"
    future: Whole


@dataclass(frozen=True)
class Said:
    """A text was typed, and what it was read as; what came of it are the commands of the steps.

    command, confidence, answer: as in `magi_world.language.Reading`.
    steps: (command, chunks) of each step, chunks None for no end; () was not obeyed.
    world: which one was told, of several; None told all.
    """

    kind: ClassVar[str] = "said"
    text: Line
    command: Line | None = None
    confidence: Chance = 0.0
    answer: str = ""
    steps: tuple[tuple[Line, Whole | None], ...] = ()
    world: Whole | None = None

    @staticmethod
    def of(reading: Reading, world: int | None = None) -> Said:
        """What was read."""
        steps = tuple((step.command, step.chunks) for step in reading.steps)
        sure, answer = reading.confidence, reading.answer
        return Said(reading.text, reading.command, sure, answer, steps, world)


@dataclass(frozen=True)
class Note:
    """A remark, e.g. who took over; it changes nothing."""

    kind: ClassVar[str] = "note"
    text: Line


Event = Reset | Step | Rewind | Save | Load | Fork | Keep | Said | Note


def frames_digest(frames: np.ndarray) -> str:
    """Checksum of uint8 frames (B, T, H, W, 3), 16 hex digits."""
    return hashlib.blake2b(np.ascontiguousarray(frames).data, digest_size=8).hexdigest()


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_record(event: Event) -> dict[str, Any]:
    """The event as JSON can hold it; what is at its default is left out."""
    record: dict[str, Any] = {"event": event.kind}
    for f in fields(event):
        value = getattr(event, f.name)
        if isinstance(value, StartFile):
            value = {value.kind: value.path, "sha256": value.sha256}
        if value != f.default:
            record[f.name] = value
    return record


def from_record(record: Mapping[str, Any]) -> Event:
    """The event of a JSON record.
    Raises ValueError: an unknown event, a missing or unknown field, a value of the wrong kind.
    """
    kinds = {kind.kind: kind for kind in get_args(Event)}
    name = record.get("event")
    if not isinstance(name, str) or name not in kinds:
        raise ValueError(f"event is {name!r}; it must be one of {', '.join(kinds)}")
    values = {key: value for key, value in record.items() if key != "event"}
    start = values.get("start")
    if isinstance(start, Mapping) and len(start) == 2 and "sha256" in start:
        (kind,) = set(start) - {"sha256"}
        values["start"] = {"kind": kind, "path": start[kind], "sha256": start["sha256"]}
    event: Event = build(kinds[name], values, "", (name,))
    return event
