"""What the world's thread is asked to do, and what it answers. Plain data, one class each.

Shapes: n futures, T video frames, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from magi_world.agents.basic import Agent
from magi_world.demos.window.moment import Moment
from magi_world.world.snapshot import Snapshot
from magi_world.world.spec import WorldSpec
from magi_world.world.world import World


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
    """Make the chunk after ``base``, under a command that ``by`` gave."""

    base: Moment
    command: str | None = None
    by: str = ""
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


@dataclass(frozen=True, eq=False)
class Imagine:
    """One more chunk of every future: n commands, from ``base``, or on from where they are."""

    base: Moment
    commands: tuple[str, ...]
    state: Snapshot | None = None


@dataclass(frozen=True, eq=False)
class Imagined:
    """frames: (n, T, H, W, 3), one chunk of each future."""

    frames: np.ndarray
    state: Snapshot
    seconds: float


@dataclass(frozen=True, eq=False)
class Keep:
    """Make one future of a fork the world's own."""

    base: Moment
    row: int
    commands: tuple[str, ...]
    chunks: tuple[Imagined, ...]


Job = Open | Begin | Ask | Step | Save | Load | Imagine | Keep


@dataclass(frozen=True, eq=False)
class Opened:
    """A world is open, and begun.

    world: for reading its form, never for stepping it.    source: what it was loaded by.
    agents: name -> who comes along that knows its commands.
    threads: of the CPU that its chunks are made with; None where that was not chosen.
    """

    world: World
    source: str
    moment: Moment
    start: Start
    agents: Mapping[str, Agent] = field(default_factory=dict)
    threads: int | None = None

    @property
    def spec(self) -> WorldSpec:
        """What the world tells about itself."""
        return self.world.spec

    @property
    def window_size(self) -> int:
        """Chunks in flight."""
        return self.world.parts.config.sampler.window_size

    @property
    def frames_per_latent(self) -> int:
        """Video frames of a latent frame."""
        return self.world.parts.config.vae.patch_length

    @property
    def steps_per_chunk(self) -> int:
        """Denoising steps between two chunks."""
        return self.world.parts.config.sampler.steps_per_stage


@dataclass(frozen=True, eq=False)
class Begun:
    """The open world has begun anew."""

    moment: Moment
    start: Start


@dataclass(frozen=True, eq=False)
class Asked:
    """What ``job.agent`` says after ``job.base``."""

    job: Ask
    command: str


@dataclass(frozen=True, eq=False)
class Stepped:
    """The chunk after ``base``."""

    moment: Moment
    base: Moment
    steer: Literal["now", "queue"]


@dataclass(frozen=True, eq=False)
class Saved:
    """The moment lies in the file."""

    slot: int
    path: Path


@dataclass(frozen=True, eq=False)
class Loaded:
    """The moment of a file; play goes on from it."""

    moment: Moment
    path: Path
    slot: int | None


@dataclass(frozen=True, eq=False)
class Kept:
    """The chosen future as moments of a single world, after ``job.base``."""

    moments: tuple[Moment, ...]
    job: Keep


@dataclass(frozen=True, eq=False)
class Failed:
    """The job could not be done; the world is as it was."""

    job: Job
    error: str


Answer = Opened | Begun | Asked | Stepped | Saved | Loaded | Imagined | Kept | Failed
