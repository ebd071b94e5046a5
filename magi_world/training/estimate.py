"""How long a run takes on this machine, stage by stage; kept in its folder for the time left."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

ESTIMATE = "estimate.json"
STAGES = ("record", "codec", "dynamics", "distill", "decoder", "heads", "classifier", "evaluate")


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
        """Seconds of everything."""
        return sum(map(self.of, STAGES))

    def save(self, folder: Path) -> None:
        """Keep it in a run's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{ESTIMATE}.part"
        part.write_text(json.dumps(asdict(self)) + "\n")
        os.replace(part, folder / ESTIMATE)

    def table(self) -> list[str]:
        """For people."""
        out = [f"{'stage':<12}{'steps':>8}{'one takes':>14}{'all':>12}"]
        for stage in STAGES:
            if steps := self.steps.get(stage, 0):
                one = self.seconds[stage]
                unit = f"{one:.2f} s" if one >= 1 else f"{one * 1e3:.1f} ms"
                out.append(f"{stage:<12}{steps:>8}{unit:>14}{duration(self.of(stage)):>12}")
        return [*out, f"{'together':<34}{duration(self.total):>12}"]


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
