"""The one place that touches a World: does a job, gives the answer. It knows no threads, no window.

Shapes: n futures, T video frames, H, W pixels.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from magi_world.agents.basic import Agent, checked_command
from magi_world.demos.window import jobs
from magi_world.demos.window.memory import give_back
from magi_world.demos.window.moment import Moment
from magi_world.demos.window.score import Score, first_score, next_score
from magi_world.io.media import fit, load_image
from magi_world.world.best_start import best_start
from magi_world.world.chunk import Chunk
from magi_world.world.snapshot import Snapshot
from magi_world.world.spec import WorldSpec
from magi_world.world.world import World

TIDY_EVERY = 8  # chunks

Progress = Callable[[int, int], None]


class Engine:
    """Holds the world that is being played. Whatever fails leaves it usable."""

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
        self._world: World | None = None
        self._wide: World | None = None
        # The state in which the world stands; another base is restored first.
        self._at: Snapshot | None = None
        self._made = 0

    def run(self, job: jobs.Job, progress: Progress) -> jobs.Answer:
        """Do it. ``progress`` gets (denoising steps done, in all); what it raises ends the job.

        Raises:
            ValueError, OSError: what was asked is wrong; the world goes on from any moment.
        """
        if isinstance(job, jobs.Open):
            return self._open(job)
        if isinstance(job, jobs.Begin):
            start = _settled(self.world, job.start)
            return jobs.Begun(self._begin(self.world, start), start)
        if isinstance(job, jobs.Ask):
            return jobs.Asked(job, self._ask(job))
        if isinstance(job, jobs.Step):
            return self._step(job, progress)
        if isinstance(job, jobs.Save):
            return self._save(job)
        if isinstance(job, jobs.Load):
            return self._load(job)
        if isinstance(job, jobs.Imagine):
            return self._imagine(job, progress)
        return self._keep(job)

    @property
    def world(self) -> World:
        """The open world.

        Raises:
            ValueError: none is open yet.
        """
        if self._world is None:
            raise ValueError("no world is open; pick one first")
        return self._world

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
        start = _settled(world, job.start)
        moment = self._begin(world, start)
        self._world, self._wide = world, None
        source = job.world if isinstance(job.world, str) else world.spec.name
        return jobs.Opened(world, source, moment, start, self._agents(world.spec), threads)

    def _begin(self, world: World, start: jobs.Start) -> Moment:
        image = None
        if start.image is not None:
            image = fit(load_image(start.image), world.spec.frame_size)
        begun = time.perf_counter()
        self._at = None
        assert start.start != "best", "it was settled which one that is"
        chunk = world.reset(start.seed, prompt=start.scene, image=image, start=start.start)
        return self._moment(chunk, world.snapshot(), begun, first_score(world.parts))

    def _step(self, job: jobs.Step, progress: Progress) -> jobs.Stepped:
        begun = time.perf_counter()
        self._stand_at(job.base.snapshot)
        self._at = None
        chunk = self.world.step(job.command, job.steer, progress)
        score = next_score(self.world.parts, job.base.score, chunk.latents)
        moment = self._moment(chunk, self.world.snapshot(), begun, score)
        self._made += 1
        if self._made % TIDY_EVERY == 0:
            give_back()
        return jobs.Stepped(replace(moment, said=job.command, by=job.by), job.base, job.steer)

    def _ask(self, job: jobs.Ask) -> str:
        base, commands = job.base, self.world.spec.command_names
        info = {
            "chunk": base.index,
            "prompt": base.command,
            "lands": base.lands,
            "skip": base.skip,
            "seed": base.seed,
            "commands": commands,
        }
        return checked_command(job.agent.act(base.frames.copy(), info), f"the agent {job.by}")

    def _save(self, job: jobs.Save) -> jobs.Saved:
        job.path.parent.mkdir(parents=True, exist_ok=True)
        job.moment.snapshot.save(job.path)
        count, height, width, _ = job.moment.frames.shape
        strip = job.moment.frames.transpose(1, 0, 2, 3).reshape(height, count * width, 3)
        # The window may look at any moment: the picture is there whole, or not at all.
        part = job.path.with_suffix(".part")
        Image.fromarray(strip).save(part, "PNG")
        os.replace(part, job.path.with_suffix(".png"))
        return jobs.Saved(job.slot, job.path)

    def _load(self, job: jobs.Load) -> jobs.Loaded:
        snapshot = Snapshot.load(job.path)
        self._at = None
        self.world.restore(snapshot, worlds=[0], row=0)
        self._at = self.world.snapshot()
        frames = self._slot_frames(job.path, self._at)
        score = first_score(self.world.parts)
        return jobs.Loaded(Moment(frames, self._at, score=score), job.path, job.slot)

    def _slot_frames(self, path: Path, snapshot: Snapshot) -> np.ndarray:
        """The strip of frames that was saved beside a slot; without it, the newest latents."""
        spec, strip = self.world.spec, path.with_suffix(".png")
        height, width = spec.frame_size
        if strip.is_file():
            pixels = load_image(strip)
            if pixels.shape[0] == height and pixels.shape[1] % width == 0:
                return pixels.reshape(height, -1, width, 3).transpose(1, 0, 2, 3).copy()
        story, latents = snapshot.stories[0], snapshot.state.newest_clean
        chunk = Chunk(latents, (story.steps,), (story.command,), (story.lands,), (0,))
        return self.world.decode(chunk).frames[0]

    def _imagine(self, job: jobs.Imagine, progress: Progress) -> jobs.Imagined:
        begun = time.perf_counter()
        n = len(job.commands)
        if self._wide is None or self._wide.num_worlds != n or job.state is None:
            self._stand_at(job.base.snapshot)
            self._wide = self.world.fork_batch(n)
        if job.state is not None:
            self._wide.restore(job.state)
        chunk = self._wide.step(list(job.commands), progress=progress)
        return jobs.Imagined(chunk.frames, self._wide.snapshot(), time.perf_counter() - begun)

    def _keep(self, job: jobs.Keep) -> jobs.Kept:
        self._at = None
        moments, score = [], job.base.score
        for chunk in job.chunks:
            self.world.restore(chunk.state, worlds=[0], row=job.row)
            self._at = self.world.snapshot()
            frames, said = chunk.frames[job.row], job.commands[job.row]
            score = next_score(self.world.parts, score, self._at.state.newest_clean)
            moments.append(Moment(frames, self._at, said=said, by="what if", score=score))
        self._wide = None
        return jobs.Kept(tuple(moments), job)

    def _stand_at(self, snapshot: Snapshot) -> None:
        if self._at is not snapshot:
            self._at = None
            self.world.restore(snapshot)

    def _moment(
        self, chunk: Chunk, snapshot: Snapshot, begun: float, score: Score | None
    ) -> Moment:
        self._at = snapshot
        seconds = time.perf_counter() - begun
        return Moment(chunk.frames[0], snapshot, chunk.skip[0], seconds=seconds, score=score)


def _settled(world: World, start: jobs.Start) -> jobs.Start:
    """The start with its number, where it asked for the best one."""
    if start.start != "best":
        return start
    number = best_start(world.parts) if start.image is None else None
    return replace(start, start=number)
