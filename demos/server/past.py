"""What one visitor can go back to: every chunk of the last while, of older ones every fourth.

Shapes: T video frames, H, W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from magi_world.world.snapshot import Snapshot

SPARSE = 4  # of older chunks one in so many is kept


@dataclass(frozen=True, eq=False)
class Moment:
    """A chunk that was shown, and the state after it.

    pictures: its frames as files.    skip: frames at the front that only repeat the start.
    said: what was typed for it, if anything.    seconds: from asking for it to having it.
    """

    state: Snapshot
    pictures: tuple[bytes, ...]
    skip: int = 0
    said: str | None = None
    seconds: float = 0.0

    @property
    def index(self) -> int:
        """Chunks since the reset."""
        return self.state.stories[0].steps

    @property
    def command(self) -> str:
        """The command in force."""
        return self.state.stories[0].command

    @property
    def shown(self) -> tuple[bytes, ...]:
        """The frames that are played."""
        return self.pictures[min(self.skip, len(self.pictures) - 1) :]


def state_bytes(state: Snapshot) -> int:
    """Memory that a state of one world takes."""
    tensors: list[Tensor] = [state.state.latents, state.state.newest_clean]
    return state.state.cache.config.nbytes + sum(x.nbytes for x in tensors)


class Past:
    """Moments of one visitor, oldest first, with a cursor on the one that is seen."""

    def __init__(self, memory: int, recent: int = 32) -> None:
        """Args:
        memory: bytes of states that may be kept.
        recent: newest chunks that are kept without a gap.
        """
        self._memory, self._recent = memory, recent
        self._moments: list[Moment] = []
        self._cursor = -1

    @property
    def current(self) -> Moment | None:
        """The moment that is seen."""
        return self._moments[self._cursor] if self._moments else None

    @property
    def indices(self) -> list[int]:
        """Chunks that one can go to."""
        return [moment.index for moment in self._moments]

    @property
    def at_end(self) -> bool:
        """Whether nothing lies after the cursor."""
        return self._cursor == len(self._moments) - 1

    def clear(self) -> None:
        """Forget everything."""
        self._moments, self._cursor = [], -1

    def append(self, moment: Moment) -> None:
        """Go on from the cursor; what lay after it is gone."""
        del self._moments[self._cursor + 1 :]
        self._moments.append(moment)
        self._thin(moment)
        self._cursor = len(self._moments) - 1

    def go_to(self, index: int) -> Moment | None:
        """Put the cursor on the kept chunk nearest to ``index``."""
        if not self._moments:
            return None
        distances = [abs(moment.index - index) for moment in self._moments]
        self._cursor = distances.index(min(distances))
        return self._moments[self._cursor]

    def _thin(self, newest: Moment) -> None:
        old = newest.index - self._recent
        self._moments = [m for m in self._moments if m.index > old or m.index % SPARSE == 0]
        most = max(2, self._memory // max(1, state_bytes(newest.state)))
        del self._moments[:-most]
