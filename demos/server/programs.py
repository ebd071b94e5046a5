"""Worlds of programs: rows that they step when they like, and single worlds played text by text.

Shapes: B worlds, T video frames, H, W pixels, C latent channels, t latent frames, h, l latent size.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from PIL import Image
from torch import Tensor

from magi_world.config import require
from magi_world.demos.render import Caption, draw_caption
from magi_world.demos.server.batching import Begin, Made, Served, Step
from magi_world.demos.server.config import Allowance, Limits
from magi_world.demos.server.page_socket import check_text
from magi_world.language import CommandQueue, Reading
from magi_world.world.snapshot import Snapshot
from magi_world.world.world import Steer, World

States = tuple[Snapshot, ...]


@dataclass(eq=False)
class ProgramWorld:
    """B rows, each the state of one world; None before its reset."""

    served: Served
    rows: list[Snapshot | None] = field(default_factory=list)

    def started(self, rows: Sequence[int]) -> list[Snapshot]:
        """The states of these rows. Raises ValueError: one was not reset, or does not exist."""
        states = []
        for row in self.known(rows):
            state = self.rows[row]
            if state is None:
                raise ValueError(f"world {row} was not reset; call reset first")
            states.append(state)
        return states

    def known(self, rows: Sequence[int]) -> list[int]:
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
        Raises ValueError: more rows than one program may have.
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
        """A world by its number. Raises ValueError: there is none."""
        if not isinstance(number, int) or number not in self._worlds:
            raise ValueError(f"id is {number!r:.40}; this program has no such world")
        return self._worlds[number]

    def close_world(self, number: int) -> None:
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
        """Keep states; their number. Raises ValueError: too many are kept."""
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
        Raises ValueError: there are none of this number.
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
        if isinstance(number, int):
            self._states.pop(number, None)

    def restore(
        self, world: ProgramWorld, states: States, targets: Sequence[int], sources: Sequence[int]
    ) -> None:
        """Rows of a world go on from kept states.
        Raises ValueError: states of another world, or rows that there are not.
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
    return state if all(r.seed == seed for r in state.state.rows) else state.reseeded(seed)


PAST = 64  # moments that can be rewound to
LINES = 256  # a picture is enlarged to at least so many lines
FUTURES = 4
MOST_CHUNKS = 16  # of one call


@dataclass(frozen=True, eq=False)
class _Past:
    state: Snapshot
    queue: CommandQueue
    frame: np.ndarray


class SinglePlay:
    """One world of one program: its queue of commands, its past, its futures."""

    def __init__(self, served: Served, limits: Limits) -> None:
        self.served, self.limits = served, limits
        self._program = Program(limits)
        self._world = self._program.world(self._program.open(served, 1))
        self._past: list[_Past] = []
        self._futures: list[list[_Past]] = []
        self.queue = CommandQueue(rest=served.spec.default_command)

    @property
    def frame(self) -> np.ndarray:
        """(H, W, 3) uint8: what is seen now. Raises ValueError: nothing, before the first reset."""
        return self._now.frame

    @property
    def chunk(self) -> int:
        return self._now.state.prompts[0].steps

    @property
    def command(self) -> str:
        return self._now.state.prompts[0].command

    @property
    def seed(self) -> int:
        return self._now.state.state.rows[0].seed

    @property
    def started(self) -> bool:
        return bool(self._past)

    async def reset(
        self,
        seed: int | None = None,
        scene: str | None = None,
        start: int | Literal["text"] | None = None,
    ) -> Made:
        """Begin anew; without a seed with a fresh one, at the world's best start.
        Raises ValueError: an argument of the wrong kind.
        """
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
            raise ValueError(f"seed is {seed!r:.40}; it must be a whole number from 0, or null")
        if scene is not None:
            check_text("scene", scene, self.limits)
        if seed is None:
            seed = secrets.randbits(31)
            start = self.served.best_start if start is None else start
        (made,) = await self._program.reset(self._world, [0], [Begin(seed, scene, start=start)])
        self.queue = CommandQueue(rest=self.served.spec.default_command)
        self._past, self._futures = [], []
        self._remember(made)
        return made

    async def read(self, text: str) -> Reading:
        """What a text means here and now. Raises ValueError: an empty or too long one."""
        check_text("text", text, self.limits)
        queue = self.queue

        def read(world: World) -> Reading:
            return world.interpreter.read(text, queue)

        return await asyncio.wrap_future(self.served.batcher.call(self, read))

    async def say(self, text: str) -> Reading:
        reading = await self.read(text)
        self.queue = self.queue.say(reading)
        return reading

    async def step(self) -> Made:
        """One chunk, under the next command of the queue.
        Raises ValueError: before the first reset.
        """
        require(self.started, "there is no world yet; call reset first")
        command, queue = self.queue.next()
        (made,) = await self._program.step(self._world, [0], [command])
        self.queue, self._futures = queue, []
        self._remember(made)
        return made

    def rewind(self, chunks: int) -> int:
        """Back by so many chunks, as far as the past is kept; how many that were.
        Raises ValueError: not a number from 1.
        """
        right = isinstance(chunks, int) and not isinstance(chunks, bool) and chunks >= 1
        require(right, f"chunks is {chunks!r:.40}; it must be a whole number from 1")
        back = min(chunks, len(self._past) - 1)
        if back > 0:
            del self._past[-back:]
        self._stand(self._now)
        return max(0, back)

    async def fork(self, texts: Sequence[str], chunks: int) -> list[str]:
        """Imagine a future for each text; the commands that they were understood as.
        Raises ValueError: too few or too many texts, one that means nothing here, or wrong chunks.
        """
        base = self._now
        require(
            2 <= len(texts) <= FUTURES,
            f"texts has {len(texts)} entries; it must have 2 .. {FUTURES}",
        )
        require(
            isinstance(chunks, int) and 1 <= chunks <= MOST_CHUNKS,
            f"chunks is {chunks!r:.40}; it must be 1 .. {MOST_CHUNKS}",
        )
        readings = [await self.read(text) for text in texts]
        for reading in readings:
            require(reading.obeyed, f"{reading.text!r}: {reading.answer}")
        queues = [base.queue.say(reading) for reading in readings]
        number = self._program.open(self.served, len(texts))
        wide = self._program.world(number)
        rows = range(len(texts))
        self._program.restore(wide, (base.state,), rows, [0] * len(texts))
        futures: list[list[_Past]] = [[] for _ in texts]
        try:
            for _ in range(chunks):
                said = [queue.next() for queue in queues]
                queues = [queue for _, queue in said]
                made = await self._program.step(wide, rows, [command for command, _ in said])
                for future, one, queue in zip(futures, made, queues, strict=True):
                    future.append(_Past(one.state, queue, one.frames[-1]))
        finally:
            self._program.close_world(number)
        self._futures = futures
        return [reading.command or reading.text for reading in readings]

    def keep(self, number: int) -> None:
        """One of the futures becomes what is, counted from 1.
        Raises ValueError: there is no such future.
        """
        count = len(self._futures)
        require(count > 0, "there are no futures to choose from; call fork first")
        require(
            isinstance(number, int) and 1 <= number <= count,
            f"number is {number!r:.40}; it must be 1 .. {count}",
        )
        self._past.extend(self._futures[number - 1])
        self._past, self._futures = self._past[-PAST:], []
        self._stand(self._now)

    def futures(self, labels: Sequence[str]) -> np.ndarray:
        """(H', W', 3) uint8: where the futures end, side by side, with their numbers."""
        pictures = [enlarged(future[-1].frame) for future in self._futures]
        labelled = [
            draw_caption(picture[None], Caption(f"{i + 1}: {label}"))[0]
            for i, (picture, label) in enumerate(zip(pictures, labels, strict=True))
        ]
        return np.concatenate(labelled, axis=1)

    async def predicted(self, seen: Tensor) -> dict[str, Any] | None:
        """Reward, probability of an end, and events of `Made.seen`; None without heads."""

        def predict(world: World) -> dict[str, Any] | None:
            heads = world.parts.heads
            if heads is None:
                return None
            said = heads(seen[None].to(world.device))
            events = {name: float(x[0]) for name, x in said.get("events", {}).items()}
            return {"reward": float(said["reward"][0]), "end": float(said["end"][0])} | {
                "events": events
            }

        return await asyncio.wrap_future(self.served.batcher.call(self, predict))

    @property
    def _now(self) -> _Past:
        require(self.started, "there is no world yet; call reset first")
        return self._past[-1]

    def _stand(self, moment: _Past) -> None:
        self.queue = moment.queue
        self._program.restore(self._world, (moment.state,), [0], [0])

    def _remember(self, made: Made) -> None:
        self._past.append(_Past(made.state, self.queue, made.frames[-1].copy()))
        del self._past[:-PAST]


def enlarged(frame: np.ndarray) -> np.ndarray:
    """(H, W, 3) at least `LINES` high, by a whole factor."""
    factor = max(1, -(-LINES // frame.shape[0]))
    size = (frame.shape[1] * factor, frame.shape[0] * factor)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))


def png(frame: np.ndarray) -> bytes:
    """The file of a picture (H, W, 3) uint8."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return file.getvalue()
