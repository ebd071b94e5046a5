"""How long things took. Kept out of `info`, which must be the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter


@dataclass
class Stats:
    """Wall-clock figures of an environment since it was made.

    steps, resets: calls.    chunks, frames: what the steps gave, over all worlds.
    last_step_seconds, last_reset_seconds: the newest call.
    """

    steps: int = 0
    chunks: int = 0
    frames: int = 0
    resets: int = 0
    step_seconds: float = 0.0
    reset_seconds: float = 0.0
    last_step_seconds: float = 0.0
    last_reset_seconds: float = 0.0

    @property
    def frames_per_second(self) -> float:
        """Frames that the steps gave a second of stepping; 0 before the first."""
        return self.frames / self.step_seconds if self.step_seconds else 0.0

    @contextmanager
    def step(self, worlds: int, frames_per_chunk: int) -> Iterator[None]:
        """Time one step of all worlds."""
        begin = perf_counter()
        yield
        self.last_step_seconds = perf_counter() - begin
        self.step_seconds += self.last_step_seconds
        self.steps += 1
        self.chunks += worlds
        self.frames += worlds * frames_per_chunk

    @contextmanager
    def reset(self) -> Iterator[None]:
        """Time one reset of some worlds."""
        begin = perf_counter()
        yield
        self.last_reset_seconds = perf_counter() - begin
        self.reset_seconds += self.last_reset_seconds
        self.resets += 1
