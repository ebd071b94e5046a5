"""A program's worlds: rows that it steps when it likes, and the moments that it keeps.

Shapes: B worlds, T video frames, H, W pixels, C latent channels, t latent frames, h, l latent size.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from magi_world.config import require
from magi_world.demos.server.allowance import Allowance
from magi_world.demos.server.batching import Begin, Made, Step
from magi_world.demos.server.config import Limits
from magi_world.demos.server.served import Served
from magi_world.world.snapshot import Snapshot
from magi_world.world.world import Steer

States = tuple[Snapshot, ...]


@dataclass(eq=False)
class ProgramWorld:
    """B rows, each the state of one world; None before its reset."""

    served: Served
    rows: list[Snapshot | None] = field(default_factory=list)

    def started(self, rows: Sequence[int]) -> list[Snapshot]:
        """The states of these rows.

        Raises:
            ValueError: one was not reset, or does not exist.
        """
        states = []
        for row in self.known(rows):
            state = self.rows[row]
            if state is None:
                raise ValueError(f"world {row} was not reset; call reset first")
            states.append(state)
        return states

    def known(self, rows: Sequence[int]) -> list[int]:
        """The rows, if there are such."""
        count = len(self.rows)
        right = all(isinstance(r, int) and 0 <= r < count for r in rows)
        require(
            bool(rows) and right and len(set(rows)) == len(rows),
            f"rows is {list(rows)!r:.80}; it must name some of 0 .. {count - 1}, each once",
        )
        return list(rows)


class Program:
    """What one connection of a program has: worlds, kept states, and an allowance of chunks."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._chunks = Allowance("chunks", limits.chunks)
        self._worlds: dict[int, ProgramWorld] = {}
        self._states: dict[int, States] = {}
        self._numbers = itertools.count(1)

    def open(self, served: Served, count: int) -> int:
        """A new world of ``count`` rows; its number.

        Raises:
            ValueError: more rows than one program may have.
        """
        used = sum(len(world.rows) for world in self._worlds.values())
        most = self.limits.rows
        require(
            isinstance(count, int) and count >= 1, f"num_worlds is {count!r}; it must be at least 1"
        )
        require(
            used + count <= most * 8 and count <= most,
            f"num_worlds is {count}; a program may have {most} at once in a world, "
            f"{most * 8} in all its forks",
        )
        number = next(self._numbers)
        self._worlds[number] = ProgramWorld(served, [None] * count)
        return number

    def world(self, number: object) -> ProgramWorld:
        """A world by its number.

        Raises:
            ValueError: there is none.
        """
        if not isinstance(number, int) or number not in self._worlds:
            raise ValueError(f"id is {number!r:.40}; this program has no such world")
        return self._worlds[number]

    def close_world(self, number: int) -> None:
        """It is no longer needed."""
        self._worlds.pop(number, None)

    async def reset(
        self, world: ProgramWorld, rows: Sequence[int], begins: Sequence[Begin]
    ) -> list[Made]:
        """Start these rows anew.

        Raises:
            ValueError: what a reset refuses; nothing has changed then.
            TooFast: over the limit.
        """
        rows = world.known(rows)
        self._chunks.take(len(rows))
        made = await asyncio.gather(*(world.served.make(self, begin) for begin in begins))
        self._put(world, rows, made)
        return list(made)

    async def step(
        self,
        world: ProgramWorld,
        rows: Sequence[int],
        commands: Sequence[str | None],
        steer: Steer = "now",
    ) -> list[Made]:
        """One chunk of these rows.

        Raises:
            ValueError: what a step refuses; nothing has changed then.
            TooFast: over the limit.
        """
        states = world.started(rows)
        require(
            len(commands) == len(states),
            f"command has {len(commands)} entries, but there are {len(states)} worlds",
        )
        self._chunks.take(len(states))
        steps = [Step(s, c, steer) for s, c in zip(states, commands, strict=True)]
        made = await asyncio.gather(*(world.served.make(self, step) for step in steps))
        self._put(world, rows, made)
        return list(made)

    def keep(self, states: Sequence[Snapshot]) -> int:
        """Keep states; their number.

        Raises:
            ValueError: too many are kept.
        """
        require(
            len(self._states) < self.limits.states,
            f"{self.limits.states} moments are kept, the most for a program; let go of some "
            "(delete snapshots that are no longer needed)",
        )
        number = next(self._numbers)
        self._states[number] = tuple(states)
        return number

    def states(self, number: object, seeds: Sequence[int] | None = None) -> States:
        """Kept states, with other seeds on request.

        Raises:
            ValueError: there are none of this number.
        """
        if not isinstance(number, int) or number not in self._states:
            raise ValueError(f"state is {number!r:.40}; this program keeps no such moment")
        states = self._states[number]
        if seeds is None:
            return states
        require(
            len(seeds) == len(states) and all(isinstance(seed, int) for seed in seeds),
            f"seeds is {seeds!r:.80}; it must be {len(states)} whole numbers",
        )
        return tuple(_reseeded(s, seed) for s, seed in zip(states, seeds, strict=True))

    def forget(self, number: object) -> None:
        """Kept states are no longer needed."""
        if isinstance(number, int):
            self._states.pop(number, None)

    def restore(
        self, world: ProgramWorld, states: States, targets: Sequence[int], sources: Sequence[int]
    ) -> None:
        """Rows of a world go on from kept states.

        Raises:
            ValueError: states of another world, or rows that there are not.
        """
        targets = world.known(targets)
        for source in sources:
            require(
                isinstance(source, int) and 0 <= source < len(states),
                f"the snapshot holds {len(states)} worlds; there is no world {source!r}",
            )
        for state in states:
            world.served.check(state)
        for target, source in zip(targets, sources, strict=True):
            world.rows[target] = states[source]

    def _put(self, world: ProgramWorld, rows: Sequence[int], made: Sequence[Made]) -> None:
        for row, one in zip(rows, made, strict=True):
            world.rows[row] = one.state


def _reseeded(state: Snapshot, seed: int) -> Snapshot:
    lanes = tuple(replace(lane, seed=seed) for lane in state.state.lanes)
    if lanes == state.state.lanes:
        return state
    return replace(state, state=replace(state.state, lanes=lanes))
