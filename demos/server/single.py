"""A single world played text by text, for protocols of assistants and of trainers.

Shapes: H, W pixels, C latent channels, t latent frames, h, l latent size.
"""

from __future__ import annotations

import asyncio
import io
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image
from torch import Tensor

from magi_world.config import require
from magi_world.demos.captions import Caption, draw_caption
from magi_world.demos.server.batching import Begin, Made
from magi_world.demos.server.config import Limits
from magi_world.demos.server.messages import check_text
from magi_world.demos.server.program import Program
from magi_world.demos.server.served import Served
from magi_world.language import CommandQueue, Reading
from magi_world.world.snapshot import Snapshot
from magi_world.world.world import World

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
        """(H, W, 3) uint8: what is seen now.

        Raises:
            ValueError: nothing, before the first reset.
        """
        return self._now.frame

    @property
    def chunk(self) -> int:
        """Chunks since the reset."""
        return self._now.state.stories[0].steps

    @property
    def command(self) -> str:
        """The command in force."""
        return self._now.state.stories[0].command

    @property
    def seed(self) -> int:
        """Of the world."""
        return self._now.state.state.lanes[0].seed

    @property
    def started(self) -> bool:
        """Whether there was a reset."""
        return bool(self._past)

    async def reset(
        self,
        seed: int | None = None,
        scene: str | None = None,
        start: int | Literal["text"] | None = None,
    ) -> Made:
        """Begin anew; without a seed with a fresh one, at the world's best start.

        Raises:
            ValueError: an argument of the wrong kind.
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
        """What a text means here and now.

        Raises:
            ValueError: an empty or too long one.
        """
        check_text("text", text, self.limits)
        queue = self.queue

        def read(world: World) -> Reading:
            return world.interpreter.read(text, queue)

        return await asyncio.wrap_future(self.served.batcher.call(self, read))

    async def say(self, text: str) -> Reading:
        """Put a text into the queue, if it is understood."""
        reading = await self.read(text)
        self.queue = self.queue.say(reading)
        return reading

    async def step(self) -> Made:
        """One chunk, under the next command of the queue.

        Raises:
            ValueError: before the first reset.
        """
        require(self.started, "there is no world yet; call reset first")
        command, queue = self.queue.next()
        (made,) = await self._program.step(self._world, [0], [command])
        self.queue, self._futures = queue, []
        self._remember(made)
        return made

    def rewind(self, chunks: int) -> int:
        """Back by so many chunks, as far as the past is kept; how many that were.

        Raises:
            ValueError: not a number from 1.
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

        Raises:
            ValueError: too few or too many texts, one that means nothing here, or wrong chunks.
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

        Raises:
            ValueError: there is no such future.
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

    async def predicted(self, latents: Tensor) -> dict[str, Any] | None:
        """Reward, probability of an end, and events of a chunk (C, t, h, l); None without heads."""

        def predict(world: World) -> dict[str, Any] | None:
            heads = world.parts.heads
            if heads is None:
                return None
            said = heads(latents[None].to(world.device))
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
