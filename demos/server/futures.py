"""What if: a few futures of one moment, each under its own command, imagined side by side."""

from __future__ import annotations

from collections.abc import Sequence

from magi_world.demos.server.batching import Made
from magi_world.demos.server.past import Moment
from magi_world.world.snapshot import Snapshot

COUNT, CHUNKS, LIMIT = 4, 4, 16


class Futures:
    """A fork that is being looked at. It is shown again and again until one future is kept."""

    def __init__(self, base: Moment, commands: Sequence[str]) -> None:
        self.base, self.commands = base, list(commands)
        self.chunks: list[list[Made]] = []
        self.strips: list[list[bytes]] = []
        self.wanted = CHUNKS

    @property
    def complete(self) -> bool:
        """Whether all that is wanted has been imagined."""
        return len(self.chunks) >= self.wanted

    @property
    def states(self) -> list[Snapshot]:
        """From where each future goes on."""
        if not self.chunks:
            return [self.base.state] * len(self.commands)
        return [made.state for made in self.chunks[-1]]

    def add(self, mades: list[Made], strips: list[bytes]) -> None:
        """One more chunk of each."""
        self.chunks.append(mades)
        self.strips.append(strips)

    def further(self) -> bool:
        """Imagine one more chunk; whether the limit allows it."""
        if self.wanted >= LIMIT:
            return False
        self.wanted += 1
        return True

    def say(self, row: int, command: str) -> None:
        """Another command for one future. All begin anew, so that they stay side by side.

        Raises:
            ValueError: there is no such future.
        """
        self.check(row)
        self.commands[row] = command
        self.chunks, self.strips = [], []

    def check(self, row: int) -> None:
        """Raises ValueError unless there is such a future."""
        if not 0 <= row < len(self.commands):
            raise ValueError(f"row is {row}; it must be one of 0 .. {len(self.commands) - 1}")
