"""What has been played: a moment for every chunk, the ring that keeps the last of them, futures.

Shapes: T video frames, H, W pixels; B worlds, C latent channels, t latent frames, h, w latent size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from magi_world.world.parts import WorldParts
from magi_world.world.snapshot import Snapshot
from magi_world.world.spec import WorldSpec

LIKELY = 0.5  # an event with at least this probability counts as one that happened
SPARSE = 4  # of chunks that are not recent one in so many is kept

Frames = TypeVar("Frames", bound=Any)  # an array, or a tuple of files
Chunk = TypeVar("Chunk")


@dataclass(frozen=True)
class Score:
    """Since the beginning of this timeline.

    counts: event -> in how many chunks it happened; every event of the world is there.
    points: sum of what these are worth.    fresh: events of the newest chunk.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    points: float = 0.0
    fresh: tuple[str, ...] = ()

    def after(self, happened: Mapping[str, float]) -> Score:
        """With one more chunk, in which these events (name -> worth) happened."""
        counts = {name: n + (name in happened) for name, n in self.counts.items()}
        return Score(counts, self.points + sum(happened.values()), tuple(happened))


def first_score(parts: WorldParts) -> Score | None:
    """Nothing has happened yet; None where a world foresees no events."""
    worth = _worth(parts)
    return None if worth is None else Score(dict.fromkeys(worth, 0))


@torch.inference_mode()
def next_score(parts: WorldParts, before: Score | None, latents: Tensor) -> Score | None:
    """After one more chunk; ``latents`` (1, C, t, h, w) are those that `Chunk.seen` has."""
    worth = _worth(parts)
    if before is None or worth is None:
        return None
    assert parts.heads is not None, "they say what is worth something"
    events = parts.heads(latents)["events"]
    return before.after({n: worth[n] for n, p in events.items() if float(p[0]) >= LIKELY})


def _worth(parts: WorldParts) -> Mapping[str, float] | None:
    """Event -> worth; None where the predictors, here or on a server, do not say."""
    return getattr(parts.heads, "worth", None)


@dataclass(frozen=True, eq=False)
class Moment(Generic[Frames]):
    """A chunk, and the state from which the next one follows.

    frames: (T, H, W, 3) uint8, or T files of pictures.
    skip: frames at the front that only repeat the start video.    seconds: it took to make.
    score: what has happened up to its end; None in worlds that do not tell.
    """

    frames: Frames
    snapshot: Snapshot
    skip: int = 0
    seconds: float = 0.0
    score: Score | None = None

    @property
    def index(self) -> int:
        """Chunks since the reset."""
        return self.snapshot.prompts[0].steps

    @property
    def command(self) -> str:
        """The one in force."""
        return self.snapshot.prompts[0].command

    @property
    def lands(self) -> int:
        """Index of the first chunk under the command in force."""
        return self.snapshot.prompts[0].lands

    @property
    def scene(self) -> str:
        return self.snapshot.prompts[0].scene

    @property
    def seed(self) -> int:
        return self.snapshot.state.rows[0].seed

    @property
    def shown_frames(self) -> Frames:
        return self.frames[min(self.skip, len(self.frames) - 1) :]


class Timeline(Generic[Frames]):
    """A ring of the last moments, with a cursor that stands on the one being watched."""

    def __init__(self, capacity: int, recent: int | None = None) -> None:
        """Args:
            recent: newest chunks that are kept without a gap, of older ones every fourth; None
                keeps all that the capacity allows.

        Raises:
            ValueError: a capacity below 2.
        """
        if capacity < 2:
            raise ValueError(f"capacity is {capacity}; it must be at least 2 chunks")
        self.capacity, self.recent = capacity, recent
        self._moments: list[Moment[Frames]] = []
        self._cursor = -1

    def __len__(self) -> int:
        return len(self._moments)

    @property
    def current(self) -> Moment[Frames] | None:
        """The moment at the cursor."""
        return self._moments[self._cursor] if self._moments else None

    @property
    def position(self) -> int:
        """Place of the cursor, 0 the oldest; -1 when empty."""
        return self._cursor

    @property
    def at_end(self) -> bool:
        """Whether the cursor is on the newest moment."""
        return self._cursor == len(self._moments) - 1

    @property
    def moments(self) -> tuple[Moment[Frames], ...]:
        """All that are kept, the oldest first."""
        return tuple(self._moments)

    @property
    def past(self) -> tuple[Moment[Frames], ...]:
        """Those up to the cursor, which is the last of them."""
        return tuple(self._moments[: self._cursor + 1])

    def clear(self) -> None:
        self._moments, self._cursor = [], -1

    def append(self, moment: Moment[Frames]) -> None:
        """Go on from the cursor: what lay after it is dropped; the oldest too, in a full ring."""
        kept: list[Moment[Frames]] = [*self.past, moment]
        if self.recent is not None:
            old = moment.index - self.recent
            kept = [m for m in kept if m.index > old or m.index % SPARSE == 0]
        self._moments = kept[-self.capacity :]
        self._cursor = len(self._moments) - 1

    def move(self, chunks: int) -> bool:
        """Move the cursor as far as possible; whether it moved at all."""
        target = min(max(self._cursor + chunks, 0), len(self._moments) - 1)
        moved = target != self._cursor
        self._cursor = target
        return moved

    def go_to(self, index: int) -> Moment[Frames] | None:
        """Put the cursor on the kept chunk nearest to ``index``."""
        if self._moments:
            distances = [abs(moment.index - index) for moment in self._moments]
            self._cursor = distances.index(min(distances))
        return self.current


FEWEST, LONG_ENOUGH = 4, 1.3  # chunks, seconds


def first_look(spec: WorldSpec, limit: int) -> int:
    """Chunks that futures are imagined ahead at first: more where chunks are short."""
    return min(limit, max(FEWEST, math.ceil(LONG_ENOUGH / spec.chunk_seconds)))


class Futures(Generic[Frames, Chunk]):
    """A fork that is being looked at, until one future is kept or all are dropped.

    chunks: what was imagined so far, each of all futures.    wanted: how many there shall be.
    """

    def __init__(
        self, base: Moment[Frames], commands: Sequence[str], wanted: int, limit: int
    ) -> None:
        self.base, self.commands = base, tuple(commands)
        self.wanted, self.limit = wanted, limit
        self.chunks: list[Chunk] = []

    @property
    def complete(self) -> bool:
        """Whether all that is wanted has been imagined."""
        return len(self.chunks) >= self.wanted

    def take(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)

    def further(self) -> bool:
        """Imagine one more chunk; whether the limit allows it."""
        if self.wanted >= self.limit:
            return False
        self.wanted += 1
        return True

    def say(self, row: int, command: str) -> None:
        """Another command for one future; all are imagined anew, so that they stay side by side."""
        self.check(row)
        self.commands = (*self.commands[:row], command, *self.commands[row + 1 :])
        self.chunks = []

    def check(self, row: int) -> None:
        """Raises ValueError unless there is such a future."""
        if not 0 <= row < len(self.commands):
            raise ValueError(f"row is {row}; it must be one of 0 .. {len(self.commands) - 1}")


def suggested_commands(command: str, spec: WorldSpec, count: int) -> tuple[str, ...]:
    """The command in force, then the world's others, the default one last; again if too few."""
    said = {c.name for c in spec.commands if command in (c.name, *c.phrases, *c.held_out)}
    others = [c for c in spec.command_names if c not in said and c != spec.default_command]
    first = [command] if command != spec.default_command else []
    names = dict.fromkeys([*first, *others, spec.default_command or command])
    known = [name for name in names if name] or ["go on"]
    return tuple(known[i % len(known)] for i in range(count))
