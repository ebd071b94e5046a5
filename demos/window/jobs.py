"""What the world's thread is asked to do, and what it answers; futures that are imagined.

Shapes: n futures, T video frames, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from magi_world.agents.basic import Agent
from magi_world.demos import timeline
from magi_world.demos.timeline import first_look, suggested_commands
from magi_world.session.events import Event
from magi_world.world.snapshot import Snapshot
from magi_world.world.spec import WorldSpec
from magi_world.world.world import World

Moment = timeline.Moment[np.ndarray]


@dataclass(frozen=True)
class Start:
    """How a world begins: see `World.reset`.

    image: a file, fitted to the frame.    start: "best" is the one that shows the world best.
    """

    seed: int | None = 0
    scene: str | None = None
    image: Path | None = None
    start: int | Literal["text", "best"] | None = None


@dataclass(frozen=True, eq=False)
class Open:
    """Load a world (or take a loaded one) and begin."""

    world: World | str
    start: Start = field(default_factory=Start)


@dataclass(frozen=True, eq=False)
class Begin:
    """Reset the open world."""

    start: Start


@dataclass(frozen=True, eq=False)
class Ask:
    """Ask an agent what it says after ``base``."""

    base: Moment
    agent: Agent
    by: str


@dataclass(frozen=True, eq=False)
class Step:
    """Make the chunk after ``base``."""

    base: Moment
    command: str | None = None
    steer: Literal["now", "queue"] = "now"


@dataclass(frozen=True, eq=False)
class Save:
    """Write a moment to a slot."""

    moment: Moment
    slot: int
    path: Path


@dataclass(frozen=True, eq=False)
class Load:
    """Take up the moment in a snapshot file; ``slot`` is None for a file that was dropped."""

    path: Path
    slot: int | None = None

    @property
    def name(self) -> str:
        return self.path.name if self.slot is None else f"slot {self.slot}"


@dataclass(frozen=True, eq=False)
class Imagine:
    """One more chunk of every future: n commands, from ``base``, or on from where they are."""

    base: Moment
    commands: tuple[str, ...]
    state: Snapshot | None = None


@dataclass(frozen=True, eq=False)
class Imagined:
    """frames: (n, T, H, W, 3), one chunk of each future.    event: its step, for the session."""

    frames: np.ndarray
    state: Snapshot
    event: Event


@dataclass(frozen=True, eq=False)
class Keep:
    """Make one future of a fork the world's own."""

    base: Moment
    row: int
    commands: tuple[str, ...]
    chunks: tuple[Imagined, ...]


Job = Open | Begin | Ask | Step | Save | Load | Imagine | Keep


def doing(job: Job | None) -> str:
    """A job that takes its time, for people; empty for the others."""
    if isinstance(job, Open):
        return f"opening {job.world if isinstance(job.world, str) else job.world.spec.name}"
    names: dict[type, str] = {Begin: "starting", Load: "loading", Save: "saving"}
    return names.get(type(job), "")


@dataclass(frozen=True, eq=False)
class Done:
    """What was asked for has happened.

    moments: what was made, in order.    events: the same as a session tells it.
    """

    job: Job
    moments: tuple[Moment, ...] = ()
    events: tuple[Event, ...] = ()

    @property
    def moment(self) -> Moment:
        """The last one, from which play goes on."""
        return self.moments[-1]


@dataclass(frozen=True, eq=False)
class Opened:
    """A world is open, and begun.

    world: for reading its form, never for stepping it.    source: what it was loaded by.
    begun: of the job `Begin`.    agents: name -> who comes along that knows its commands.
    threads: of the CPU that its chunks are made with; None where that was not chosen.
    """

    world: World
    source: str
    begun: Done
    agents: Mapping[str, Agent] = field(default_factory=dict)
    threads: int | None = None

    @property
    def spec(self) -> WorldSpec:
        return self.world.spec

    @property
    def moment(self) -> Moment:
        """At which it begins."""
        return self.begun.moment

    @property
    def window_size(self) -> int:
        """Chunks in flight."""
        return self.world.parts.config.sampler.window_size

    @property
    def frames_per_latent(self) -> int:
        return self.world.parts.config.vae.patch_length

    @property
    def steps_per_chunk(self) -> int:
        """Denoising steps between two chunks."""
        return self.world.parts.config.sampler.steps_per_stage


@dataclass(frozen=True, eq=False)
class Asked:
    """What ``job.agent`` says after ``job.base``."""

    job: Ask
    command: str


@dataclass(frozen=True, eq=False)
class Failed:
    """The job could not be done; the world is as it was."""

    job: Job
    error: str


Answer = Opened | Asked | Imagined | Done | Failed


SIDE_BY_SIDE, AT_MOST = 4, 32  # futures; chunks that each is imagined ahead


class Futures(timeline.Futures[np.ndarray, Imagined]):
    """A fork on the screen: it begins with the command in force and the world's others, and loops.

    seconds: of what was imagined, that were shown.    selected: the marked one.
    """

    def __init__(self, base: Moment, spec: WorldSpec) -> None:
        commands = suggested_commands(base.command, spec, SIDE_BY_SIDE)
        super().__init__(base, commands, first_look(spec, AT_MOST), AT_MOST)
        self.selected = 0
        self.seconds = 0.0
        self._period = 1 / spec.fps

    def job(self) -> Imagine | None:
        """The next thing to imagine."""
        if self.complete:
            return None
        return Imagine(self.base, self.commands, self.chunks[-1].state if self.chunks else None)

    def say(self, row: int, command: str) -> None:
        super().say(row, command)
        self.seconds = 0.0

    def select(self, row: int) -> None:
        self.selected = row % len(self.commands)

    def keep(self, row: int) -> Keep:
        """The job that makes one future real. Raises ValueError: nothing has been imagined yet."""
        if not self.chunks:
            raise ValueError("the futures are still being imagined; keep one when it moves")
        return Keep(self.base, row, self.commands, tuple(self.chunks))

    def advance(self, seconds: float) -> None:
        """Time passes; past the end of what was imagined it begins again."""
        self.seconds += seconds
        end = self._total * self._period
        if not self.complete:
            self.seconds = min(self.seconds, end)
        elif self.seconds >= end + 0.4:
            self.seconds = 0.0

    @property
    def frames(self) -> np.ndarray:
        """(n, H, W, 3): what is shown now; the moment of the fork while nothing is imagined."""
        if not self.chunks:
            last = self.base.frames[-1]
            return np.broadcast_to(last, (len(self.commands), *last.shape))
        chunk, frame = divmod(self._frame, self.chunks[0].frames.shape[1])
        return self.chunks[chunk].frames[:, frame]

    @property
    def chunk_shown(self) -> int:
        """How many chunks after the fork the picture is, from 1; 0 while nothing is imagined."""
        return self._frame // self.chunks[0].frames.shape[1] + 1 if self.chunks else 0

    @property
    def _frame(self) -> int:
        return min(int(self.seconds / self._period), self._total - 1)

    @property
    def _total(self) -> int:
        return sum(chunk.frames.shape[1] for chunk in self.chunks)
