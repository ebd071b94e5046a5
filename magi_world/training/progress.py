"""One line a minute while a stage trains: how far, how good, how long until all is done."""

from __future__ import annotations

import statistics
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from magi_world.training.estimate import Estimate, duration, read_estimate

EVERY = 60.0  # seconds between lines
FIRST = 10.0  # seconds before the first one


class Progress:
    """The progress of one stage.

    Args:
        name: of the stage. total: its steps. step: those done already. folder: of the run; an
            estimate that lies there says how long the other stages take.
    """

    def __init__(self, name: str, total: int, step: int, folder: Path) -> None:
        self.name, self.total, self.step, self.folder = name, total, step, folder
        self.estimate: Estimate | None = read_estimate(folder)
        self.times: deque[float] = deque(maxlen=200)
        self.last = time.monotonic()
        self.due = self.last + FIRST
        self.shown: dict[str, float] = {}
        self.held_out: dict[str, float] = {}
        self.bar = tqdm(
            total=total, initial=step, desc=name, mininterval=5, disable=not sys.stderr.isatty()
        )

    @property
    def seconds(self) -> float:
        """Of one step, the median of the newest; the first, which warms up, does not count."""
        newest = list(self.times)[1:] or list(self.times)
        return statistics.median(newest) if newest else 0.0

    def advance(self, loss: float) -> None:
        """A step is done."""
        now = time.monotonic()
        self.times.append(now - self.last)
        self.last, self.step = now, self.step + 1
        self.shown["loss"] = loss
        self.bar.update()
        if now >= self.due:
            self.due = now + EVERY
            self.say(self.line())

    def probed(self, figures: Mapping[str, float]) -> None:
        """Figures on what is held out; measuring them is no step."""
        self.held_out = dict(figures)
        self.last = time.monotonic()

    def paused(self) -> None:
        """Something else took time: a checkpoint, a report."""
        self.last = time.monotonic()

    def line(self) -> str:
        """For people and logs."""
        figures = [f"{k} {v:.4g}" for k, v in {**self.shown, **self.held_out}.items()]
        left = self.seconds * (self.total - self.step)
        told = [f"{self.name} {self.step}/{self.total}", ", ".join(figures)]
        told.append(f"{duration(left)} of {self.name} left")
        if (later := self.later()) is not None:
            told.append(f"{duration(left + later)} of all")
        return f"{time.strftime('%H:%M:%S')}  " + "; ".join(told)

    def later(self) -> float | None:
        """Seconds that the stages after this one take, or None where nobody estimated them.

        The estimate is scaled by how this stage goes: a machine that is busy is busy for all.
        """
        if self.estimate is None or self.name not in self.estimate.seconds:
            return None
        rest = self.estimate.after(self.name)
        planned = self.estimate.seconds[self.name]
        return rest * (self.seconds / planned if planned and self.seconds else 1.0)

    def say(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()

    def close(self) -> None:
        """The stage is over, or stopped."""
        self.bar.close()
