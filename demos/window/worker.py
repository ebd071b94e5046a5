"""The thread that owns the world: jobs go in one at a time, answers come out.

Shapes: n futures, T video frames, H, W pixels.

pygame is never touched here, and the world nowhere else.
"""

from __future__ import annotations

import ctypes
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from magi_world.agents.basic import Agent, checked_command
from magi_world.demos.timeline import Moment, Score, first_score, next_score
from magi_world.demos.window import jobs
from magi_world.io.files import replacing
from magi_world.io.media import load_image
from magi_world.session.events import (
    Fork,
    Keep,
    Load,
    Reset,
    StartFile,
    Step,
    file_digest,
    frames_digest,
)
from magi_world.session.player import SessionPlayer
from magi_world.session.session import step_event
from magi_world.world.chunk import Chunk
from magi_world.world.snapshot import Snapshot
from magi_world.world.spec import WorldSpec
from magi_world.world.start import best_start
from magi_world.world.world import World


def resident() -> int | None:
    """Bytes of this process in memory; on macOS the most there have been, on Windows unknown."""
    status = Path("/proc/self/statm")
    if not status.exists() and sys.platform != "darwin":
        return None
    import resource

    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def give_back() -> None:
    """Hand free memory to the system, where the C library can (glibc); a few milliseconds.

    Every snapshot that is kept lies between short-lived tensors, and glibc keeps the holes: without
    this the shipped world takes 4 MB a chunk instead of the one that a snapshot has.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


TIDY_EVERY = 8  # chunks

Progress = Callable[[int, int], None]


class Engine:
    """Holds the world that is being played. Whatever fails leaves it usable.

    What happens to the world are the events of a session, performed as a replay performs them.
    """

    def __init__(
        self,
        load: Callable[[str], World],
        agents: Callable[[WorldSpec], Mapping[str, Agent]] = lambda spec: {},
        tune: Callable[[World], int | None] = lambda world: None,
    ) -> None:
        """Args:
        load: opens a world by name.
        agents: who comes along that knows a world's commands.
        tune: makes a world that has just been opened quick, and says with how many threads. It
            may step the world, which is reset afterwards.
        """
        self._load_world, self._agents, self._tune = load, agents, tune
        self._player: SessionPlayer | None = None
        # The state in which the world stands; another base is restored first.
        self._at: Snapshot | None = None
        self._made = 0

    @property
    def player(self) -> SessionPlayer:
        """Of the open world. Raises ValueError: none is open yet."""
        if self._player is None:
            raise ValueError("no world is open; pick one first")
        return self._player

    def run(self, job: jobs.Job, progress: Progress) -> jobs.Answer:
        """Do it. ``progress`` gets (denoising steps done, in all); what it raises ends the job.
        Raises ValueError, OSError: what was asked is wrong; the world goes on from any moment.
        """
        if isinstance(job, jobs.Open):
            return self._open(job)
        self.player.progress = progress
        match job:
            case jobs.Begin():
                return self._begin(self.player, job.start)
            case jobs.Ask():
                return jobs.Asked(job, self._ask(job))
            case jobs.Step():
                return self._step(job)
            case jobs.Save():
                return self._save(job)
            case jobs.Load():
                return self._load(job)
            case jobs.Imagine():
                return self._imagine(job)
            case jobs.Keep():
                return self._keep(job)

    def _open(self, job: jobs.Open) -> jobs.Opened:
        world = self._load_world(job.world) if isinstance(job.world, str) else job.world
        if world.num_worlds != 1:
            raise ValueError(
                f"world has num_worlds {world.num_worlds}; a window plays one, so it must be 1"
            )
        threads = self._tune(world)
        if world.spec.commands:
            # The first text takes long to read; better here than when a person has typed it.
            world.interpreter.read("what do you know")
        player = SessionPlayer(world, marks=set())
        begun = self._begin(player, job.start)
        self._player = player
        source = job.world if isinstance(job.world, str) else world.spec.name
        return jobs.Opened(world, source, begun, self._agents(world.spec), threads)

    def _begin(self, player: SessionPlayer, start: jobs.Start) -> jobs.Done:
        world, place = player.world, start.start
        if place == "best":
            place = best_start(world.parts) if start.image is None else None
        seed = secrets.randbits(31) if start.seed is None else start.seed
        file = None if start.image is None else StartFile.of(start.image.resolve(), "image")
        event = Reset((seed,), start.scene, file or place)
        self._at = player.futures = None
        begun = time.perf_counter()
        chunk = player.perform(event)
        assert chunk is not None, "a reset gives one"
        moment = self._moment(chunk, world, begun, first_score(world.parts))
        settled = jobs.Begin(replace(start, seed=seed, start=place))
        event = replace(event, digest=frames_digest(chunk.frames))
        return jobs.Done(settled, (moment,), (event,))

    def _step(self, job: jobs.Step) -> jobs.Done:
        begun = time.perf_counter()
        self._stand_at(job.base.snapshot)
        self._at = None
        chunk = self.player.perform(Step(job.base.index + 1, job.command, job.steer))
        assert chunk is not None, "a step gives one"
        world = self.player.world
        score = next_score(world.parts, job.base.score, chunk.seen)
        moment = self._moment(chunk, world, begun, score)
        self._made += 1
        if self._made % TIDY_EVERY == 0:
            give_back()
        event = step_event(chunk, job.steer, frames_digest(chunk.frames))
        return jobs.Done(job, (moment,), (event,))

    def _ask(self, job: jobs.Ask) -> str:
        base, commands = job.base, self.player.world.spec.command_names
        info = {
            "chunk": base.index,
            "prompt": base.command,
            "lands": base.lands,
            "skip": base.skip,
            "seed": base.seed,
            "commands": commands,
        }
        return checked_command(job.agent.act(base.frames.copy(), info), f"the agent {job.by}")

    def _save(self, job: jobs.Save) -> jobs.Done:
        job.path.parent.mkdir(parents=True, exist_ok=True)
        job.moment.snapshot.save(job.path)
        count, height, width, _ = job.moment.frames.shape
        strip = job.moment.frames.transpose(1, 0, 2, 3).reshape(height, count * width, 3)
        # The window may look at any moment: the picture is there whole, or not at all.
        with replacing(job.path.with_suffix(".png")) as part:
            Image.fromarray(strip).save(part, "PNG")
        return jobs.Done(job)

    def _load(self, job: jobs.Load) -> jobs.Done:
        path, world = job.path.resolve(), self.player.world
        event = Load(str(job.slot or path.name), str(path), file_digest(path))
        self._at = self.player.futures = None
        self.player.perform(event)
        self._at = world.snapshot()
        frames = self._slot_frames(path, self._at)
        return jobs.Done(job, (Moment(frames, self._at, score=first_score(world.parts)),), (event,))

    def _slot_frames(self, path: Path, snapshot: Snapshot) -> np.ndarray:
        """The strip of frames that was saved beside a slot; without it, the newest latents."""
        world, strip = self.player.world, path.with_suffix(".png")
        height, width = world.spec.frame_size
        if strip.is_file():
            pixels = load_image(strip)
            if pixels.shape[0] == height and pixels.shape[1] % width == 0:
                return pixels.reshape(height, -1, width, 3).transpose(1, 0, 2, 3).copy()
        chunk = Chunk.of(snapshot.prompts, snapshot.state.newest_clean)
        return world.decode(chunk).frames[0]

    def _imagine(self, job: jobs.Imagine) -> jobs.Imagined:
        player, count = self.player, len(job.commands)
        if player.futures is None or player.futures.num_worlds != count or job.state is None:
            self._stand_at(job.base.snapshot)
            player.perform(Fork(count))
        assert player.futures is not None, "a fork gives them"
        if job.state is not None:
            player.futures.restore(job.state)
        chunk = player.perform(Step(job.base.index + 1, job.commands))
        assert chunk is not None, "a step gives one"
        event = step_event(chunk, "now", frames_digest(chunk.frames))
        return jobs.Imagined(chunk.frames, player.futures.snapshot(), event)

    def _keep(self, job: jobs.Keep) -> jobs.Done:
        self._at = self.player.futures = None
        world, moments, score = self.player.world, [], job.base.score
        for chunk in job.chunks:
            before = (self._at or job.base.snapshot).state.newest_clean
            world.restore(chunk.state, worlds=[0], row=job.row)
            self._at = world.snapshot()
            seen = self._at.state.newest_clean
            if world.parts.heads_see > 1:
                seen = torch.cat([before, seen], 2)
            score = next_score(world.parts, score, seen)
            moments.append(Moment(chunk.frames[job.row], self._at, score=score))
        events = (Fork(len(job.commands)), *(chunk.event for chunk in job.chunks), Keep(job.row))
        return jobs.Done(job, tuple(moments), events)

    def _stand_at(self, snapshot: Snapshot) -> None:
        self.player.futures = None
        if self._at is not snapshot:
            self._at = None
            self.player.world.restore(snapshot)

    def _moment(self, chunk: Chunk, world: World, begun: float, score: Score | None) -> jobs.Moment:
        self._at = world.snapshot()
        seconds = time.perf_counter() - begun
        return Moment(chunk.frames[0], self._at, chunk.skip[0], seconds, score)


class Cancelled(Exception):
    """Raised inside a job that is no longer wanted, at its next denoising step."""


@dataclass(eq=False)
class _Ticket:
    """A job under way; written by the worker's thread, read by the other."""

    job: jobs.Job
    progress: tuple[int, int] = (0, 0)
    cancelled: bool = False


class Worker:
    """Runs jobs of an engine in a thread of its own, one at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="world")
        self._ticket: _Ticket | None = None
        self._answer: Future[jobs.Answer | None] | None = None
        self._closed = threading.Event()

    @property
    def job(self) -> jobs.Job | None:
        """The one being done, or whose answer has not been taken yet."""
        return None if self._ticket is None else self._ticket.job

    @property
    def progress(self) -> tuple[int, int]:
        """(denoising steps done, in all) of that job; (0, 0) before the first one."""
        return (0, 0) if self._ticket is None else self._ticket.progress

    def submit(self, job: jobs.Job) -> None:
        """Start a job, only when there is none; behind a cancelled one that is still ending."""
        if self._ticket is not None:
            raise RuntimeError("the worker has a job; poll it until it answers, or cancel it")
        self._ticket = ticket = _Ticket(job)
        self._answer = self._pool.submit(self._run, ticket)

    def poll(self) -> jobs.Answer | None:
        """The answer, once there is one."""
        if self._answer is None or not self._answer.done():
            return None
        answer = self._answer.result()
        self._ticket = self._answer = None
        return answer

    def cancel(self) -> None:
        """Drop the current job; its answer will not be seen."""
        if self._ticket is not None:
            self._ticket.cancelled = True
        self._ticket = self._answer = None

    def close(self) -> None:
        self._closed.set()
        self.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, ticket: _Ticket) -> jobs.Answer | None:
        def progress(done: int, total: int) -> None:
            ticket.progress = (done, total)
            if ticket.cancelled or self._closed.is_set():
                raise Cancelled

        if ticket.cancelled or self._closed.is_set():
            return None
        try:
            return self._engine.run(ticket.job, progress)
        except Cancelled:
            return None
        except (ValueError, OSError) as error:
            return jobs.Failed(ticket.job, str(error))
        except Exception as error:
            # Not foreseen: the terminal gets the whole story, the window its last line.
            traceback.print_exc()
            return jobs.Failed(ticket.job, f"{type(error).__name__}: {error}")
