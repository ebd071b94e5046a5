"""What a training run tells about itself: episodes, losses, speed; a row of CSV an update."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

LOSSES = {
    "policy_loss": "train/policy_gradient_loss",
    "value_loss": "train/value_loss",
    "entropy": "train/entropy_loss",
    "kl": "train/approx_kl",
    "clipped": "train/clip_fraction",
    "explained": "train/explained_variance",
    "learning_rate": "train/learning_rate",
}


@dataclass
class Episodes:
    """Sums over the running episodes of B worlds, and those that ended since the last `take`.

    running: name -> (B,): "return" (what the heads predict, before any penalty), "reward" (what
    was learnt from), "length", and "events.NAME" of what else is predicted or counted.
    """

    running: dict[str, np.ndarray] = field(default_factory=dict)
    ended: list[dict[str, float]] = field(default_factory=list)

    def add(
        self, rewards: np.ndarray, dones: np.ndarray, infos: Sequence[Mapping[str, Any]]
    ) -> None:
        """One step of all worlds, as Stable-Baselines3 has it."""
        for row, (reward, done, info) in enumerate(zip(rewards, dones, infos, strict=True)):
            told = info.get("rewards", {})
            values = {"return": told.get("learned", reward), "reward": reward, "length": 1}
            values |= {f"events.{k}": v for k, v in info.get("events", {}).items() if k != "end"}
            for name, value in values.items():
                self.running.setdefault(name, np.zeros(len(rewards)))[row] += float(value)
            if done:
                cut = float(info.get("TimeLimit.truncated", False))
                sums = {name: float(total[row]) for name, total in self.running.items()}
                self.ended.append({**sums, "cut": cut})
                for total in self.running.values():
                    total[row] = 0

    def take(self) -> dict[str, float]:
        """Means over the episodes that ended, with their number; they are forgotten."""
        ended, self.ended = self.ended, []
        if not ended:
            return {"episodes": 0}
        names = ended[0]
        return {"episodes": len(ended)} | {
            name: float(np.mean([episode[name] for episode in ended])) for name in names
        }


class ProgressFile:
    """``progress.csv``: one row an update. A run that goes on first drops what it will do again."""

    def __init__(self, path: Path, steps: int = 0) -> None:
        """``steps``: where the run goes on; later rows are dropped."""
        self.path = path
        rows = [row for row in read_rows(path) if int(row["steps"]) <= steps]
        self._names = list(rows[0]) if rows else []
        if path.exists():
            temporary = path.with_name(path.name + ".part")
            with temporary.open("w", newline="") as file:
                if rows:
                    writer = csv.DictWriter(file, self._names)
                    writer.writeheader()
                    writer.writerows(rows)
            os.replace(temporary, path)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; the first one decides the columns."""
        new = not self._names
        if new:
            self._names = list(row)
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self._names, restval="", extrasaction="ignore")
            if new:
                writer.writeheader()
            writer.writerow({k: _short(v) for k, v in row.items()})


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """Rows of a CSV file; a last line that was cut off is left out. [] if there is no file."""
    if not Path(path).exists():
        return []
    with Path(path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if None not in row and None not in row.values()]


def losses(values: Mapping[str, Any]) -> dict[str, float]:
    """What Stable-Baselines3 logged of an update, under our names; entropy as such."""
    found = {name: float(values[key]) for name, key in LOSSES.items() if key in values}
    if "entropy" in found:
        found["entropy"] = -found["entropy"]
    return found


def told(row: Mapping[str, Any], total: int, seconds_left: float) -> str:
    """A line for people."""
    back = f"return {row['return']:7.3f}   " if row.get("return") is not None else ""
    minutes = max(0, round(seconds_left / 60))
    return (
        f"{row['steps']:>7}/{total}   {back}{row['steps_per_s']:.1f} steps/s, "
        f"{row['frames_per_s']:.0f} frames/s, {row['world_share']:.0%} in the world, "
        f"{minutes} min left"
    )


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
