"""One batch for everybody: whoever needs a chunk asks here, and all who wait are computed together.

The worlds themselves are not kept here. A request brings the state from which to go on, and gets
the state that follows, so nobody's world can be touched by anybody else's request.

Shapes: T video frames, H, W pixels, C latent channels, t latent frames, h, l latent size.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from magi_world.demos.bench import choose_threads
from magi_world.demos.steering import KeyMap
from magi_world.language import Interpreter
from magi_world.world.chunk import Chunk
from magi_world.world.snapshot import Snapshot, check_snapshot
from magi_world.world.spec import WorldSpec
from magi_world.world.start import best_start
from magi_world.world.world import Steer, World

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Begin:
    """Start a world. ``image``, ``video``, ``start``: as in `World.reset`, for one world."""

    seed: int | None = 0
    scene: str | None = None
    image: np.ndarray | None = None
    video: np.ndarray | None = None
    start: int | Literal["text"] | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """The chunk after ``state``; ``command`` None goes on as before."""

    state: Snapshot
    command: str | None = None
    steer: Steer = "now"


@dataclass(frozen=True, eq=False)
class Call:
    """Something else that needs the world's parts, in the world's thread."""

    function: Callable[[World], Any]


@dataclass(frozen=True, eq=False)
class Made:
    """One chunk of one world, and the state after it.

    frames: (T, H, W, 3) uint8.    latents: (C, t, h, l).    skip, seen: as in `Chunk`.
    together: worlds of the forward that made it.    seconds: how long that took.
    """

    state: Snapshot
    frames: np.ndarray
    latents: Tensor
    skip: int
    together: int
    seconds: float
    seen: Tensor

    @property
    def index(self) -> int:
        return self.state.prompts[0].steps

    @property
    def command(self) -> str:
        return self.state.prompts[0].command


@dataclass(eq=False)
class _Request:
    owner: object
    what: Begin | Step | Call
    answer: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True)
class BatchFigures:
    """forwards, chunks: made so far.    busy: seconds spent on them.    waiting: requests now."""

    forwards: int
    chunks: int
    busy: float
    waiting: int


class Batcher:
    """Owns a world of N rows and the only thread that touches it."""

    def __init__(self, world: World) -> None:
        """Starts the thread. ``world.num_worlds`` is how many are computed at once."""
        self._world = world
        self._waiting: list[_Request] = []
        self._news = threading.Condition()
        self._closed = False
        self._forwards = self._chunks = 0
        self._busy = 0.0
        self._thread = threading.Thread(target=self._run, name="world", daemon=True)
        self._thread.start()

    @property
    def world(self) -> World:
        return self._world

    @property
    def figures(self) -> BatchFigures:
        return BatchFigures(self._forwards, self._chunks, self._busy, len(self._waiting))

    def ask(self, owner: object, what: Begin | Step) -> Future[Made]:
        """Have it done. A future that is cancelled while it waits costs nothing.

        Args:
            owner: on whose behalf; owners take turns, however much each of them asks for.

        Returns:
            The chunk, or the ValueError that `World.reset` or `World.step` raised.

        Raises:
            RuntimeError: the batcher was closed.
        """
        return self._put(_Request(owner, what))

    def _put(self, request: _Request) -> Future[Any]:
        with self._news:
            if self._closed:
                raise RuntimeError("the server is closing; there are no more chunks")
            self._waiting.append(request)
            self._news.notify()
        return request.answer

    def call(self, owner: object, function: Callable[[World], Result]) -> Future[Result]:
        """Have ``function`` called with the world, which it must not step."""
        answer: Future[Any] = self._put(_Request(owner, Call(function)))
        return answer

    def close(self) -> None:
        """Stop after the forward that is being computed; those who wait are cancelled."""
        with self._news:
            self._closed = True
            waiting, self._waiting = self._waiting, []
            self._news.notify()
        for request in waiting:
            request.answer.cancel()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                picked = self._pick()
            picked = [r for r in picked if r.answer.set_running_or_notify_cancel()]
            if not picked:
                continue
            begun = perf_counter()
            steps = [r for r in picked if isinstance(r.what, Step)]
            for request in picked:
                if isinstance(request.what, Begin):
                    self._begin(request, request.what)
                elif isinstance(request.what, Call):
                    self._call(request, request.what)
            for steer in ("now", "queue"):
                alike = [r for r in steps if isinstance(r.what, Step) and r.what.steer == steer]
                if alike:
                    self._step(alike)
            self._busy += perf_counter() - begun

    def _pick(self) -> list[_Request]:
        """As many as fit: everybody's first request, then everybody's second, and so on."""
        turns: Counter[object] = Counter()
        ranked: list[tuple[int, int]] = []
        for place, request in enumerate(self._waiting):
            turns[request.owner] += 1
            ranked.append((turns[request.owner], place))
        chosen = {place for _, place in sorted(ranked)[: self._world.num_worlds]}
        picked = [self._waiting[place] for place in sorted(chosen)]
        self._waiting = [r for i, r in enumerate(self._waiting) if i not in chosen]
        return picked

    def _begin(self, request: _Request, what: Begin) -> None:
        begun = perf_counter()
        try:
            chunk = self._world.reset(
                what.seed, what.scene, what.image, what.video, what.start, worlds=[0]
            )
            made = self._made(chunk, 0, 0, 1, perf_counter() - begun)
        except Exception as error:
            _fail([request], error)
        else:
            request.answer.set_result(made)

    def _call(self, request: _Request, what: Call) -> None:
        try:
            with torch.inference_mode():
                result = what.function(self._world)
        except Exception as error:
            _fail([request], error)
        else:
            request.answer.set_result(result)

    def _step(self, requests: Sequence[_Request]) -> None:
        begun = perf_counter()
        rows = list(range(len(requests)))
        try:
            steps = [r.what for r in requests if isinstance(r.what, Step)]
            for row, step in zip(rows, steps, strict=True):
                self._world.restore(step.state, worlds=[row], row=0)
            commands = [step.command for step in steps]
            chunk = self._world.step(commands, steps[0].steer, worlds=rows)  # type: ignore[arg-type]
            seconds = perf_counter() - begun
            made = [self._made(chunk, row, row, len(rows), seconds) for row in rows]
        except Exception as error:
            # One that is wrong must not spoil the others: each is tried alone.
            if len(requests) == 1:
                _fail(requests, error)
            else:
                for request in requests:
                    self._step([request])
            return
        self._forwards += 1
        self._chunks += len(rows)
        for request, one in zip(requests, made, strict=True):
            request.answer.set_result(one)

    def _made(self, chunk: Chunk, part: int, row: int, together: int, seconds: float) -> Made:
        frames = chunk.frames[part]
        if together > 1:
            frames = frames.copy()  # or each visitor would hold the pictures of all
        latents = chunk.latents[part].to("cpu", torch.float32).clone()
        state = self._world.snapshot([row])
        seen = latents
        if chunk.before is not None:
            seen = chunk.seen[part].to("cpu", torch.float32).clone()
        return Made(state, frames, latents, chunk.skip[part], together, seconds, seen)


def _fail(requests: Sequence[_Request], error: Exception) -> None:
    for request in requests:
        request.answer.set_exception(error)


class Served:
    """One world of the server, for all who play in it."""

    def __init__(self, source: str, world: World, threads: int | None = None) -> None:
        """Args:
        source: what the world was loaded by.
        world: ``world.num_worlds`` is the size of the batch.
        threads: of the CPU; None measures which number is quickest.
        """
        self.source = source
        self.batcher = Batcher(world)
        self.keymap = KeyMap(world.spec.commands)
        # For headers of session files: every visitor's world is one of a single row.
        config = world.config
        self.alone = World(world.parts, 1, config.attention, config.noise_scale)
        self.best_start = best_start(world.parts)

        def tune(world: World) -> None:
            if threads is not None:
                torch.set_num_threads(threads)
            else:
                choose_threads(self.alone)

        # In the thread that steps the world: the number of threads is a matter of each thread.
        self.batcher.call(self, tune).result()

    @property
    def world(self) -> World:
        return self.batcher.world

    @property
    def spec(self) -> WorldSpec:
        return self.world.spec

    @property
    def interpreter(self) -> Interpreter:
        return self.world.interpreter

    def check(self, state: Snapshot) -> None:
        """Raise ValueError unless play can go on from this state here."""
        check_snapshot(state, self.spec, self.alone._stream)
        if state.num_worlds != 1:
            raise ValueError(f"the state is of {state.num_worlds} worlds; it must be of one")

    async def make(self, owner: object, what: Begin | Step) -> Made:
        """One chunk. Raises ValueError: what was asked is wrong."""
        return await asyncio.wrap_future(self.batcher.ask(owner, what))

    def describe(self) -> dict[str, Any]:
        spec, sampler = self.spec, self.world.parts.config.sampler
        return {
            "source": self.source,
            "name": spec.name,
            "description": spec.description,
            "frame_size": spec.frame_size,
            "fps": spec.fps,
            "frames_per_chunk": spec.frames_per_chunk,
            "commands": [_command(c.name, c.phrases, self.keymap) for c in spec.commands],
            "default_command": spec.default_command,
            "scene": spec.scene,
            "num_starts": spec.num_starts,
            "fingerprint": spec.fingerprint,
            "window_size": sampler.window_size,
            "num_steps": sampler.num_steps,
        }

    def close(self) -> None:
        self.batcher.close()


def _command(name: str, phrases: tuple[str, ...], keymap: KeyMap) -> Mapping[str, Any]:
    return {"name": name, "phrases": phrases[:6], "keys": keymap.keys_of(name)}
