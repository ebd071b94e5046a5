"""A player on a fake clock, with a worker that has no thread: what happens when is exact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from magi_world.agents import Agent
from magi_world.demos.window import jobs
from magi_world.demos.window.player import Player, PlayerConfig
from magi_world.demos.window.watchers import Watcher
from magi_world.demos.window.worker import Engine
from magi_world.world.world import World
from tests.tiny import tiny_world


class InlineRunner:
    """In the place of a `Worker`: a job takes ``seconds`` of the clock, and is done when polled."""

    def __init__(self, engine: Engine, now: Callable[[], float], seconds: float) -> None:
        self.engine, self.now, self.seconds = engine, now, seconds
        self.job: jobs.Job | None = None
        self.progress = (0, 0)
        self.submitted: list[tuple[float, jobs.Job]] = []
        self.closed = False
        self._ready = 0.0

    def submit(self, job: jobs.Job) -> None:
        assert self.job is None, "one job at a time"
        self.submitted.append((self.now(), job))
        self.job, self._ready = job, self.now() + self.seconds

    def poll(self) -> jobs.Answer | None:
        if self.job is None or self.now() < self._ready:
            return None
        job, self.job = self.job, None
        try:
            answer = self.engine.run(job, lambda done, total: None)
        except (ValueError, OSError) as error:
            return jobs.Failed(job, str(error))
        if isinstance(answer, jobs.Done) and isinstance(job, jobs.Step):
            # As if it had taken so long: pacing must not depend on the machine.
            return replace(answer, moments=(replace(answer.moment, seconds=self.seconds),))
        return answer

    def cancel(self) -> None:
        self.job = None

    def close(self) -> None:
        self.closed = True


class Stage:
    """Opens the tiny world (8 frames at 16 fps: half a second a chunk) and lets time pass."""

    def __init__(
        self,
        seconds: float = 0.1,
        agents: Mapping[str, Agent] | None = None,
        watchers: Sequence[Watcher] = (),
        config: PlayerConfig | None = None,
        load: Callable[[str], World] = lambda name: tiny_world(),
    ) -> None:
        self.time = 100.0
        self.runner = InlineRunner(Engine(load), lambda: self.time, seconds)
        # Most tests watch a world that nobody talks to; only some want it to rest.
        chosen = config or PlayerConfig(rest=0)
        self.player = Player(self.runner, agents, watchers, chosen)  # type: ignore[arg-type]

    def opened(self, start: jobs.Start | None = None) -> Player:
        self.player.open(jobs.Open("tiny", start or jobs.Start()))
        self.until(lambda p: p.moment is not None)
        return self.player

    def run(self, seconds: float, tick: float = 0.01) -> None:
        for _ in range(round(seconds / tick)):
            self.time += tick
            self.player.tick(self.time)

    def until(self, condition: Callable[[Player], object], limit: float = 20.0) -> None:
        end = self.time + limit
        while not condition(self.player):
            assert self.time < end, f"it never happened; {self.errors}"
            self.run(0.01)

    def chunk(self, index: int) -> Player:
        self.until(lambda p: p.moment is not None and p.moment.index == index)
        return self.player

    @property
    def steps(self) -> list[jobs.Step]:
        return [job for _, job in self.runner.submitted if isinstance(job, jobs.Step)]

    @property
    def errors(self) -> list[str]:
        return [n.text for n in self.player.notices.shown if n.level == "error"]


def reference(commands: list[str], seed: int = 0) -> np.ndarray:
    """Frames of the last chunk of a world that was told these commands, one a chunk."""
    world = tiny_world()
    chunk = world.reset(seed)
    for command in commands:
        chunk = world.step(command)
    return chunk.frames[0]


def frame(player: Player) -> np.ndarray:
    assert player.playback.frame is not None
    return player.playback.frame
