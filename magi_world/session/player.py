"""Sessions played again: events in, chunks out; and where a replay first differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from magi_world.config import require
from magi_world.io.media import fit, load_image, load_video
from magi_world.sampling.denoise import Progress
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
    StartFile,
    Step,
    file_digest,
    frames_digest,
)
from magi_world.session.session import Session, step_event
from magi_world.world.chunk import Chunk
from magi_world.world.snapshot import Snapshot
from magi_world.world.world import World

Item = TypeVar("Item")


class SessionPlayer:
    """A world on which events are performed, one after the other.

    Args:
        world: it is reset, stepped and restored.
        folder: what relative paths of start files are relative to.
        marks: indices of chunks that a later `Rewind` goes back to, or `Save` keeps; None keeps
            the state of every chunk, which costs memory in a long session.
        progress: as in `World.step`; what it raises leaves the world where it was.
    """

    def __init__(
        self,
        world: World,
        folder: Path = Path(),
        marks: set[int] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.world, self.folder, self.marks = world, folder, marks
        self.progress = progress
        self.futures: World | None = None
        self._past: dict[int, Snapshot] = {}
        self._imagined: dict[int, Snapshot] = {}
        # Each with the past that a rewind behind its loading goes back to.
        self._slots: dict[str, tuple[Snapshot, dict[int, Snapshot]]] = {}

    def perform(self, event: Event) -> Chunk | None:
        """What happens; the decoded chunk of a `Reset` or `Step`, else None.

        Raises:
            ValueError: the event cannot happen here. The world is as before.
            FileNotFoundError: a start file is gone.
        """
        if self.futures is not None and not isinstance(event, Step | Keep | Note | Said):
            raise ValueError(f"{event.kind} is not possible in a fork; keep one future first")
        match event:
            case Reset():
                return self._reset(event)
            case Step():
                return self._step(event)
            case Rewind(chunk):
                if chunk not in self._past:
                    raise ValueError(f"rewind to chunk {chunk}, which is not in the past")
                self.world.restore(self._past[chunk])
                self._past = {i: s for i, s in self._past.items() if i <= chunk}
            case Save(slot, chunk):
                if chunk is not None and chunk not in self._past:
                    raise ValueError(f"save of chunk {chunk}, which is not in the past")
                state = self.world.snapshot() if chunk is None else self._past[chunk]
                upto = state.prompts[0].steps
                self._slots[slot] = state, {i: s for i, s in self._past.items() if i <= upto}
            case Load():
                state, past = self._slot(event)
                self.world.restore(state)
                self._past = dict(past)
                self._remember(state.prompts[0].steps)
            case Fork(count):
                if self.world.num_worlds != 1:
                    raise ValueError(f"fork of {self.world.num_worlds} worlds; it must be one")
                self.futures = self.world.fork_batch(count)
            case Keep(row):
                self._keep(row)
        return None

    def _reset(self, event: Reset) -> Chunk:
        start: Any = event.start
        image = video = None
        if isinstance(event.start, StartFile):
            frames = load_start(event.start, self.world, self.folder)
            image, video = (frames, None) if event.start.kind == "image" else (None, frames)
            start = None
        scene: Any = event.scene  # None among several is each world's own
        chunk = self.world.reset(event.seeds, scene, image, video, start, event.worlds)
        self._past = {}
        self._remember(0)
        return chunk

    def _step(self, event: Step) -> Chunk:
        say: Any = event.say  # None among several goes on as before
        chunk = (self.futures or self.world).step(say, event.steer, self.progress)
        index = chunk.index[0]
        if self.futures is None:
            self._remember(index)
        elif self.marks is None or index in self.marks:
            self._imagined[index] = self.futures.snapshot()
        return chunk

    def _keep(self, row: int) -> None:
        if self.futures is None:
            raise ValueError("keep without a fork before it")
        if row >= self.futures.num_worlds:
            raise ValueError(
                f"keep is {row}; the fork has futures 0 .. {self.futures.num_worlds - 1}"
            )
        for index, state in self._imagined.items():
            self.world.restore(state, worlds=[0], row=row)
            self._past[index] = self.world.snapshot()
        self.world.restore(self.futures.snapshot(), worlds=[0], row=row)
        self.futures, self._imagined = None, {}

    def _remember(self, index: int) -> None:
        if self.marks is None or index in self.marks:
            self._past[index] = self.world.snapshot()

    def _slot(self, event: Load) -> tuple[Snapshot, dict[int, Snapshot]]:
        if event.path is None:
            if event.slot not in self._slots:
                raise ValueError(f"slot {event.slot!r} was not saved before")
            return self._slots[event.slot]
        return Snapshot.load(_same_file(event.path, event.sha256, self.folder)), {}


def replay(session: Session, world: World) -> Iterator[Chunk]:
    """The chunks of a session, made again.
    Raises ValueError: an event that this world cannot perform; the message names its line.
    """
    for _, chunk in perform_all(session, world):
        if chunk is not None:
            yield chunk


def perform_all(session: Session, world: World) -> Iterator[tuple[Event, Chunk | None]]:
    """Every event of a session, with the chunk that it gave. Raises ValueError: as `replay`."""
    check_batch(session, world)
    player = SessionPlayer(world, session.folder, rewound_to(session.events))
    for number, event in enumerate(session.events):
        try:
            chunk = player.perform(event)
        except ValueError as error:
            raise ValueError(f"{session.where(number)}: {error}") from error
        yield event, chunk


def rewound_to(events: Sequence[Event]) -> set[int]:
    """The marks that a `SessionPlayer` needs for these events."""
    chunks = (event.chunk for event in events if isinstance(event, Rewind | Save))
    return {chunk for chunk in chunks if chunk is not None}


def check_batch(session: Session, world: World) -> None:
    """Raise ValueError unless the session has as many worlds as this one."""
    if world.num_worlds != session.header.num_worlds:
        raise ValueError(
            f"the session is of {session.header.num_worlds} worlds, this is {world.num_worlds}; "
            "load the world with that num_worlds"
        )


@dataclass
class Run(Generic[Item]):
    """One timeline from a reset on.    items: one for the reset, one for every chunk after it."""

    reset: Reset
    items: list[Item]

    def until(self, chunk: int | None = None) -> Run[Item]:
        """A copy up to a chunk; None copies all of it."""
        return Run(self.reset, self.items[: None if chunk is None else chunk + 1])


class Runs(Generic[Item]):
    """The timelines of a session; what is rewound or not kept is in none of them.

    done: those that were left for another beginning.    now: the one that goes on.
    """

    def __init__(self) -> None:
        self.done: list[Run[Item]] = []
        self.now: Run[Item] = Run(Reset((0,)), [])
        self._slots: dict[str, Run[Item]] = {}
        self._futures: list[Run[Item]] = []

    @property
    def count(self) -> int:
        """Of futures that go on side by side; 1 outside of a fork."""
        return len(self._futures) or 1

    def happened(self, event: Event, items: Sequence[Item] = ()) -> None:
        """``items``: of a reset one, of a step one for each future.
        Raises ValueError: the slot of another session is loaded.
        """
        match event:
            case Reset():
                self.done.append(self.now)
                self.now = Run(event, list(items))
            case Step():
                for run, item in zip(self._futures or [self.now], items, strict=True):
                    run.items.append(item)
            case Rewind(chunk):
                self.now = self.now.until(chunk)
            case Save(slot, chunk):
                self._slots[slot] = self.now.until(chunk)
            case Load(slot):
                require(slot in self._slots, f"slot {slot!r} is of another session")
                self.done.append(self.now)
                self.now = self._slots[slot].until()
            case Fork(count):
                self._futures = [self.now.until() for _ in range(count)]
            case Keep(future):
                self.now, self._futures = self._futures[future], []


@dataclass(frozen=True)
class Verdict:
    """What a comparison found.

    compared: chunks with a checksum that were made again.
    difference: where the first one differs and in what, or None.
    causes: what is not as it was when the session was written.
    """

    compared: int
    difference: str | None
    causes: tuple[str, ...]


def verify(session: Session, world: World) -> Iterator[Chunk | Verdict]:
    """Replay and compare: the chunks, then one `Verdict`; it stops at the first difference.
    Raises ValueError: as `replay`.
    """
    causes, compared = tuple(session.header.differences(world)), 0
    for number, (event, chunk) in enumerate(perform_all(session, world)):
        if chunk is None or not isinstance(event, Reset | Step):
            continue
        yield chunk
        if what := _difference(event, chunk):
            place = f"{session.where(number)}, chunk {chunk.index[0]}: {what}"
            yield Verdict(compared, place, causes)
            return
        compared += event.digest is not None
    yield Verdict(compared, None, causes)


def _difference(event: Reset | Step, chunk: Chunk) -> str | None:
    now = frames_digest(chunk.frames)
    if isinstance(event, Step):
        again = step_event(chunk, event.steer, now)
        if event.chunk != again.chunk:
            return f"its index was {event.chunk}, is {again.chunk}"
        if event.lands is not None and event.lands != again.lands:
            return f"its command landed on chunk {event.lands}, lands on {again.lands}"
    if event.digest is not None and event.digest != now:
        return f"the checksum of its frames was {event.digest}, is {now}"
    return None


def load_start(start: StartFile, world: World, folder: Path = Path()) -> np.ndarray:
    """Frames of a start file, scaled and cut to the world's size: (H, W, 3) or (T, H, W, 3) uint8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not the one that it was.
    """
    return start_pixels(start.kind, _same_file(start.path, start.sha256, folder), world)


def start_pixels(kind: Literal["image", "video"], path: str | Path, world: World) -> np.ndarray:
    """A picture, or as much of the end of a film as the world can remember, as `load_start`."""
    spec = world.spec
    if kind == "image":
        return fit(load_image(path), spec.frame_size)
    remembered = (world.parts.config.sampler.history + 1) * spec.frames_per_chunk
    return fit(load_video(path, spec.fps, remembered), spec.frame_size)


def _same_file(name: str, sha256: str | None, folder: Path) -> Path:
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is gone; the session starts from it")
    if sha256 is not None and file_digest(path) != sha256:
        raise ValueError(f"{path} has changed since the session was written")
    return path
