"""What has been played: one moment for every chunk, and the ring that keeps the last of them.

Shapes: T video frames, H, W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from magi_world.demos.window.score import Score
from magi_world.world.snapshot import Snapshot


@dataclass(frozen=True, eq=False)
class Moment:
    """A chunk, and the state from which the next one follows.

    frames: (T, H, W, 3) uint8.
    skip: frames at the front that only repeat the start video.
    said: the command that was given for it; None went on with the one in force.
    by: name of the controller that gave it.
    seconds: how long it took to make.
    score: what has happened up to its end; None in worlds that do not tell.
    """

    frames: np.ndarray
    snapshot: Snapshot
    skip: int = 0
    said: str | None = None
    by: str = ""
    seconds: float = 0.0
    score: Score | None = None

    @property
    def index(self) -> int:
        """Chunks since the reset."""
        return self.snapshot.stories[0].steps

    @property
    def command(self) -> str:
        """The command in force."""
        return self.snapshot.stories[0].command

    @property
    def lands(self) -> int:
        """Index of the first chunk under the command in force."""
        return self.snapshot.stories[0].lands

    @property
    def scene(self) -> str:
        """The scene prompt."""
        return self.snapshot.stories[0].scene

    @property
    def seed(self) -> int:
        """Seed of the world."""
        return self.snapshot.state.lanes[0].seed

    @property
    def shown_frames(self) -> np.ndarray:
        """The frames that are played."""
        return self.frames[min(self.skip, len(self.frames) - 1) :]


class Timeline:
    """A ring of the last moments, with a cursor that stands on the one being watched."""

    def __init__(self, capacity: int) -> None:
        """Raises ValueError for a capacity below 2."""
        if capacity < 2:
            raise ValueError(f"capacity is {capacity}; it must be at least 2 chunks")
        self.capacity = capacity
        self._moments: list[Moment] = []
        self._cursor = -1

    def __len__(self) -> int:
        return len(self._moments)

    @property
    def current(self) -> Moment | None:
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

    def clear(self) -> None:
        """Forget everything."""
        self._moments, self._cursor = [], -1

    @property
    def moments(self) -> tuple[Moment, ...]:
        """All that are kept, the oldest first."""
        return tuple(self._moments)

    @property
    def past(self) -> tuple[Moment, ...]:
        """Those up to the cursor, which is the last of them."""
        return tuple(self._moments[: self._cursor + 1])

    def append(self, moment: Moment) -> None:
        """Go on from the cursor: what lay after it is dropped; the oldest too, in a full ring."""
        del self._moments[self._cursor + 1 :]
        self._moments.append(moment)
        del self._moments[: -self.capacity]
        self._cursor = len(self._moments) - 1

    def move(self, chunks: int) -> bool:
        """Move the cursor as far as possible; whether it moved at all."""
        target = min(max(self._cursor + chunks, 0), len(self._moments) - 1)
        moved = target != self._cursor
        self._cursor = target
        return moved
