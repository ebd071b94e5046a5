"""What dreaming and judging are told. Light: the command line shows the defaults."""

from __future__ import annotations

from dataclasses import dataclass

from magi_world.config import require


@dataclass(frozen=True)
class DreamConfig:
    """What is dreamed.

    world: what `magi_world.load_world` takes.    episodes: in all.
    chunks: steps of an episode at most; the world's heads may end it before.
    batch: episodes of a unit.    agent: as in `magi_world.agents.load_agent`.
    hold: for how many chunks each choice of the agent "random" stands.
    seed: episode i is that of seed + i.    num_steps, dtype: of the world; None is its own.
    device: where it runs; None is the GPU where there is one.    threads: of the CPU, per worker.
    """

    world: str
    episodes: int = 16
    chunks: int = 32
    batch: int = 4
    agent: str = "random"
    hold: int = 2
    seed: int = 0
    num_steps: int | None = None
    dtype: str | None = None
    device: str | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("episodes", "chunks", "batch", "hold", "threads"):
            value = getattr(self, name)
            require(value >= 1, f"{name} is {value}; it must be at least 1")
        require(self.seed >= 0, f"seed is {self.seed}; it must be at least 0")

    @property
    def units(self) -> range:
        return range(-(-self.episodes // self.batch))

    def seeds(self, unit: int) -> list[int]:
        """Of the episodes of a unit; the last unit dreams to the end of its batch as well."""
        return [self.seed + unit * self.batch + row for row in range(self.batch)]


@dataclass(frozen=True)
class JudgeConfig:
    """episodes: how many, with seeds seed, seed + 1, ...    processes: that share the work.

    What an episode comes to depends on its seed alone, not on the number of processes.
    """

    episodes: int = 100
    seed: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("seed", 0), ("processes", 1)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"JudgeConfig.{name} is {value}; it must be at least {least}")

    @property
    def seeds(self) -> range:
        """Of the episodes."""
        return range(self.seed, self.seed + self.episodes)
