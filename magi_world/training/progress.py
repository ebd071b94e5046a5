"""How long a run takes on this machine, and one line a minute while a stage trains."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tabulate import tabulate
from tqdm import tqdm

from magi_world.io.files import write_text

ESTIMATE = "estimate.json"

STAGES = ("record", "codec", "dynamics", "distill", "decoder", "heads", "classifier", "evaluate")
EVERY = 60.0  # seconds between lines
FIRST = 10.0  # seconds before the first one


@dataclass(frozen=True)
class Estimate:
    """What a run takes: per stage its steps and the seconds of one; bytes on disk and in memory."""

    steps: dict[str, int]
    seconds: dict[str, float]
    disk: int = 0
    memory: int = 0

    def of(self, stage: str) -> float:
        """Seconds of a whole stage; 0 of one that is not known."""
        return self.steps.get(stage, 0) * self.seconds.get(stage, 0.0)

    def after(self, stage: str) -> float:
        """Seconds of all stages behind one."""
        return sum(map(self.of, STAGES[STAGES.index(stage) + 1 :])) if stage in STAGES else 0.0

    @property
    def total(self) -> float:
        return sum(map(self.of, STAGES))

    def save(self, folder: Path) -> None:
        write_text(folder / ESTIMATE, json.dumps(asdict(self)) + "\n")

    def table(self) -> list[str]:
        rows = [("stage", "steps", "one takes", "all")]
        for stage in STAGES:
            if steps := self.steps.get(stage, 0):
                one = self.seconds[stage]
                unit = f"{one:.2f} s" if one >= 1 else f"{one * 1e3:.1f} ms"
                rows.append((stage, str(steps), unit, duration(self.of(stage))))
        rows.append(("together", "", "", duration(self.total)))
        return tabulate(rows, tablefmt="plain", colalign=("left", *["right"] * 3)).splitlines()


def read_estimate(folder: Path) -> Estimate | None:
    """What was kept in a run's folder; None where nothing usable is."""
    try:
        return Estimate(**json.loads((folder / ESTIMATE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def duration(seconds: float) -> str:
    """For people: "40 s", "12 min", "5 h 20 min"."""
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


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
        tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()

    def close(self) -> None:
        self.bar.close()
