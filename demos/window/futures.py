"""What if: futures of one moment, each under its own command, imagined side by side.

Shapes: n futures, T video frames, H, W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from magi_world.demos.window import jobs
from magi_world.demos.window.moment import Moment
from magi_world.world.spec import WorldSpec


@dataclass(frozen=True)
class FuturesConfig:
    """count: futures side by side.    chunks: how far at first.    limit: how far at most."""

    count: int = 4
    chunks: int = 4
    limit: int = 32


class Futures:
    """A fork that is being looked at. It loops until one future is kept or all are dropped."""

    def __init__(self, base: Moment, spec: WorldSpec, config: FuturesConfig | None = None) -> None:
        """Begins with the command in force and the world's others."""
        self.config = config or FuturesConfig()
        self.base = base
        self.commands = suggested_commands(base.command, spec, self.config.count)
        self.chunks: list[jobs.Imagined] = []
        self.wanted = self.config.chunks
        self.selected = 0
        self.seconds = 0.0
        self._period = 1 / spec.fps

    @property
    def complete(self) -> bool:
        """Whether all that is wanted has been imagined."""
        return len(self.chunks) >= self.wanted

    def job(self) -> jobs.Imagine | None:
        """The next thing to imagine."""
        if self.complete:
            return None
        state = self.chunks[-1].state if self.chunks else None
        return jobs.Imagine(self.base, self.commands, state)

    def take(self, chunk: jobs.Imagined) -> None:
        """One more chunk of every future."""
        self.chunks.append(chunk)

    def further(self) -> bool:
        """Imagine one more chunk; whether the limit allows it."""
        if self.wanted >= self.config.limit:
            return False
        self.wanted += 1
        return True

    def say(self, row: int, command: str) -> None:
        """Another command for one future; all are imagined anew, so that they stay side by side."""
        commands = list(self.commands)
        commands[row] = command
        self.commands = tuple(commands)
        self.chunks, self.seconds = [], 0.0

    def select(self, row: int) -> None:
        """Point at one future."""
        self.selected = row % self.config.count

    def keep(self, row: int) -> jobs.Keep:
        """The job that makes one future real.

        Raises:
            ValueError: nothing has been imagined yet.
        """
        if not self.chunks:
            raise ValueError("the futures are still being imagined; keep one when it moves")
        return jobs.Keep(self.base, row, self.commands, tuple(self.chunks))

    def advance(self, seconds: float) -> None:
        """Time passes; past the end of what was imagined it begins again."""
        self.seconds += seconds
        if self.complete and self.seconds >= self._total() * self._period + 0.4:
            self.seconds = 0.0
        elif not self.complete:
            self.seconds = min(self.seconds, self._total() * self._period)

    @property
    def frames(self) -> np.ndarray:
        """(n, H, W, 3): what is shown now; the moment of the fork while nothing is imagined."""
        if not self.chunks:
            last = self.base.frames[-1]
            return np.broadcast_to(last, (self.config.count, *last.shape))
        frame = min(int(self.seconds / self._period), self._total() - 1)
        chunk, frame = divmod(frame, self.chunks[0].frames.shape[1])
        return self.chunks[chunk].frames[:, frame]

    @property
    def chunk_shown(self) -> int:
        """How many chunks after the fork the picture is, from 1; 0 while nothing is imagined."""
        if not self.chunks:
            return 0
        frame = min(int(self.seconds / self._period), self._total() - 1)
        return frame // self.chunks[0].frames.shape[1] + 1

    def _total(self) -> int:
        return sum(chunk.frames.shape[1] for chunk in self.chunks)


def suggested_commands(command: str, spec: WorldSpec, count: int) -> tuple[str, ...]:
    """The command in force, then the world's others, the default one last; again if too few."""
    said = {c.name for c in spec.commands if command in (c.name, *c.phrases, *c.held_out)}
    others = [c for c in spec.command_names if c not in said and c != spec.default_command]
    first = [command] if command != spec.default_command else []
    names = dict.fromkeys([*first, *others, spec.default_command or command])
    known = [name for name in names if name] or ["go on"]
    return tuple(known[i % len(known)] for i in range(count))
