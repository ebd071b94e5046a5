"""What can happen in a session, one frozen dataclass each, and their form as JSON records.

`digest` is a checksum of the frames that followed (`frames_digest`); it is what a replay is
compared with, and it is never needed to replay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from magi_world.language import Reading

PerWorld = int | tuple[int, ...]
MAX_FUTURES = 1024


@dataclass(frozen=True)
class StartFile:
    """A picture or film that a world started from, known by its path and its content.

    path: as the user gave it, or relative to the folder of the session file.
    """

    kind: Literal["image", "video"]
    path: str
    sha256: str

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
    seeds: tuple[int, ...]
    scene: str | tuple[str | None, ...] | None = None
    start: int | Literal["text"] | StartFile | None = None
    worlds: tuple[int, ...] | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Step:
    """One chunk was made.

    chunk: its index, per world where they differ.
    say: the command in force, per world where there are several; None goes on as before.
    lands: index of the first chunk that the command conditions, per world where they differ.
    """

    kind: ClassVar[str] = "step"
    chunk: PerWorld
    say: str | tuple[str | None, ...] | None = None
    steer: Literal["now", "queue"] = "now"
    lands: PerWorld | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Rewind:
    """Back to where the world stood when chunk `chunk` had been made (0: just reset)."""

    kind: ClassVar[str] = "rewind"
    chunk: int


@dataclass(frozen=True)
class Save:
    """The state was put into a slot: the one of now, or of when chunk `chunk` had been made."""

    kind: ClassVar[str] = "save"
    slot: str
    chunk: int | None = None


@dataclass(frozen=True)
class Load:
    """The state of a slot was taken up; of an earlier session, it lies in a snapshot file."""

    kind: ClassVar[str] = "load"
    slot: str
    path: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Fork:
    """From here the world goes on `futures` ways at once; steps are for all of them."""

    kind: ClassVar[str] = "fork"
    futures: int


@dataclass(frozen=True)
class Keep:
    """One future of the fork goes on, the others are gone."""

    kind: ClassVar[str] = "keep"
    future: int


@dataclass(frozen=True)
class Said:
    """A text was typed, and what it was read as; what came of it are the commands of the steps.

    command, confidence, answer: as in `magi_world.language.Reading`.
    steps: (command, chunks) of each step, chunks None for no end; () was not obeyed.
    world: which one was told, of several; None told all.
    """

    kind: ClassVar[str] = "said"
    text: str
    command: str | None = None
    confidence: float = 0.0
    answer: str = ""
    steps: tuple[tuple[str, int | None], ...] = ()
    world: int | None = None

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
    text: str


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
    kinds = {kind.kind: kind for kind in _EVENTS}
    name = record.get("event")
    if not isinstance(name, str) or name not in kinds:
        raise ValueError(f"event is {name!r}; it must be one of {', '.join(kinds)}")
    kind = kinds[name]
    known = {f.name: f for f in fields(kind)}
    given = {key: value for key, value in record.items() if key != "event"}
    for key in given:
        if key not in known:
            raise ValueError(f"{name} has no field {key!r}; it has {', '.join(known)}")
    values = {key: _checked(f"{name}.{key}", value) for key, value in given.items()}
    try:
        return kind(**values)
    except TypeError:
        missing = [k for k, f in known.items() if f.default is f.default_factory and k not in given]
        raise ValueError(f"{name} lacks {', '.join(missing)}") from None


_EVENTS: tuple[type[Event], ...] = (Reset, Step, Rewind, Save, Load, Fork, Keep, Said, Note)


def _checked(field: str, value: Any) -> Any:
    """One value of a record, its lists as tuples."""
    read, right = _KINDS.get(field) or _KINDS[field.split(".")[1]]
    try:
        return read(value)
    except (ValueError, TypeError, KeyError, IndexError):
        raise ValueError(f"{field} is {value!r:.80}; it must be {right}") from None


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError
    return value


def _futures(value: Any) -> int:
    if not 1 <= _whole(value) <= MAX_FUTURES:
        raise ValueError
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    value.encode()  # lone surrogates can be written nowhere
    return value


def _maybe(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


def _several(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def tuple_of(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or not value:
            raise ValueError
        return tuple(read(one) for one in value)

    return tuple_of


def _one_or_several(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: (_several(read) if isinstance(value, list | tuple) else read)(value)


def _start(value: Any) -> int | str | StartFile | None:
    if value is None or value == "text":
        return value
    if not isinstance(value, dict):
        return _whole(value)
    kind: Literal["image", "video"] = "image" if "image" in value else "video"
    if set(value) != {kind, "sha256"}:
        raise ValueError
    return StartFile(kind, _text(value[kind]), _text(value["sha256"]))


def _chance(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError
    return float(value)


def _lengths(value: Any) -> tuple[tuple[str, int | None], ...]:
    if not isinstance(value, list | tuple):
        raise ValueError
    return tuple((_text(command), _maybe(_whole)(chunks)) for command, chunks in value)


def _steer(value: Any) -> str:
    return ("now", "queue")[("now", "queue").index(value)]


_TEXTS = (_maybe(_one_or_several(_maybe(_text))), "a text, a list of texts, or null")
_NUMBER = (_whole, "a whole number from 0 on")
_NUMBERS = (_one_or_several(_whole), "a whole number from 0 on, or a list of them")
_LINE = (_text, "a text that is not empty")
_KINDS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "seeds": (_several(_whole), "a list of whole numbers from 0 on"),
    "scene": _TEXTS,
    "say": _TEXTS,
    "start": (_start, 'a number, "text", {"image": path, "sha256": ...}, a video, or null'),
    "worlds": (_maybe(_several(_whole)), "a list of worlds, or null"),
    "chunk": _NUMBERS,
    "rewind.chunk": _NUMBER,
    "save.chunk": (_maybe(_whole), _NUMBER[1] + ", or null"),
    "lands": (_maybe(_NUMBERS[0]), _NUMBERS[1] + ", or null"),
    "steer": (_steer, '"now" or "queue"'),
    "slot": _LINE,
    "text": _LINE,
    "command": (_maybe(_text), "a command, or null"),
    "confidence": (_chance, "a number from 0 to 1"),
    "answer": (str, "a text"),
    "steps": (_lengths, "a list of [command, chunks or null]"),
    "world": (_maybe(_whole), "the number of a world, or null"),
    "path": (_maybe(_text), "the path of a file"),
    "sha256": (_maybe(_text), "the SHA-256 of a file"),
    "digest": (_maybe(_text), "a checksum"),
    "futures": (_futures, f"a whole number from 1 to {MAX_FUTURES:,}"),
    "future": _NUMBER,
}
