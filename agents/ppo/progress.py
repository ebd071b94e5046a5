"""What a training run tells of itself, a row of CSV an update, and what it keeps in its folder."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from magi_world.agents.ppo.config import TrainAgentConfig
from magi_world.agents.ppo.policy import PolicyRecord, save_policy
from magi_world.interrupts import Stopped
from magi_world.io.records import field_of, read_json
from magi_world.io.safetensors_io import load_tensors, save_tensors

SCHEMA = 1  # of a run's state
_FLOOR = 0.1  # share of the learning rate that is left at the end
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
    back = f"return {row['return']:7.3f}   " if row.get("return") is not None else ""
    minutes = max(0, round(seconds_left / 60))
    return (
        f"{row['steps']:>7}/{total}   {back}{row['steps_per_s']:.1f} steps/s, "
        f"{row['frames_per_s']:.0f} frames/s, {row['world_share']:.0%} in the world, "
        f"{minutes} min left"
    )


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


class RunFolder:
    """What every training run keeps in its folder: policies, ``progress.csv``, and its state.

    ``state/step_N/`` holds ``learner.safetensors``, ``state.json`` and what the engine adds. It
    gets its name when it is complete, so that a kill leaves the one before.

    clock: seconds in all, and in the world of them.
    recent: figures of the newest episodes that ended.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainAgentConfig,
        policy: PolicyRecord,
        frames_per_chunk: int,
        tell: Callable[[str], None],
    ) -> None:
        """``policy``: what is known of the policy before it has learnt anything."""
        self.folder, self.config, self.policy = folder, config, policy
        self.frames_per_chunk, self.tell = frames_per_chunk, tell
        self.clock: dict[str, float] = {"seconds": 0.0, "world": 0.0}
        self.recent: dict[str, Any] = {}
        self._saved = perf_counter()
        self._rows: ProgressFile | None = None

    def update(
        self,
        steps: int,
        seconds: float,
        world: float,
        episodes: Mapping[str, Any],
        losses: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Note and tell an update; its row of figures.

        Args:
            steps: done so far.
            seconds, world: what the update took, and what of it was the world's.
            episodes: figures of those that ended, "episodes" says how many.
        """
        clock, done, total = self.clock, self.config.update_steps, self.config.total_steps
        self.clock = {"seconds": clock["seconds"] + seconds, "world": clock["world"] + world}
        row = {
            "steps": steps,
            "return": None,
            "length": None,
            "steps_per_s": done / seconds,
            "frames_per_s": done / seconds * self.frames_per_chunk,
            "world_share": world / seconds,
            "seconds": self.clock["seconds"],
            **losses,
            **episodes,
        }
        if episodes["episodes"]:
            self.recent = dict(episodes)
        if self._rows is None:
            self._rows = ProgressFile(self.folder / "progress.csv", steps - done)
        self._rows.add(row)
        self.tell(told(row, total, (total - steps) * self.clock["seconds"] / steps))
        return row

    def rate(self, left: float) -> float:
        """The learning rate, with this share of the run left."""
        return self.config.learning_rate * (_FLOOR + (1 - _FLOOR) * left)

    def keep(self, steps: int, weights: Mapping[str, Tensor], last: bool = False) -> None:
        """Write the policy as it is now: as the run's own if it is the last, else a checkpoint."""
        place = self.folder if last else self.folder / "checkpoints" / f"step_{steps}"
        figures = {**self.recent, **self.clock}
        save_policy(place, replace(self.policy, steps=steps, figures=figures), weights)

    def due(self, before: int, steps: int) -> bool:
        """Whether a checkpoint lies between two numbers of steps."""
        marks, total = self.config.checkpoints, self.config.total_steps
        return max(0, steps) * marks // total > max(0, before) * marks // total

    def late(self) -> bool:
        """Whether the state was saved too long ago."""
        return perf_counter() - self._saved > self.config.save_seconds

    def save_state(
        self,
        steps: int,
        tensors: Mapping[str, Tensor],
        record: Mapping[str, Any],
        also: Callable[[Path], object] | None = None,
    ) -> None:
        """Write ``state/step_N``, then drop the ones before; ``also`` adds files of its own."""
        self._saved = perf_counter()
        place = self.folder / "state" / f"step_{steps}"
        if place.exists():
            return
        part = place.with_name(f"{place.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        save_tensors(part / "learner.safetensors", tensors)
        if also is not None:
            also(part)
        (part / "state.json").write_text(json.dumps(record), encoding="utf-8")
        os.replace(part, place)
        for other in place.parent.glob("step_*"):
            if other != place:
                shutil.rmtree(other)

    def newest_state(
        self, kinds: Mapping[str, Any]
    ) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
        """Folder, tensors and record of the newest state; None if there is none.

        Args:
            kinds: the fields of the record, checked as `magi_world.io.records.field` does.

        Raises:
            ValueError: of another version, or damaged.
        """
        found = [p for p in (self.folder / "state").glob("step_*") if p.name[5:].isdecimal()]
        if not found:
            return None
        place = max(found, key=lambda path: int(path.name[5:]))
        path = place / "state.json"
        record = read_json(path)
        schema = field_of(record, "schema", int, str(path))
        if schema != SCHEMA:
            raise ValueError(f"{place} has schema {schema}; this package reads {SCHEMA}")
        for name, kind in kinds.items():
            field_of(record, name, kind, str(path))
        tensors = {n: t.clone() for n, t in load_tensors(place / "learner.safetensors").items()}
        return place, tensors, record

    def stopped(self, steps: int) -> Stopped:
        return Stopped(
            f"stopped at step {steps} of {self.config.total_steps}; the same command goes on from "
            f"{self.folder}"
        )


def learner_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights and the optimiser's moments; copies."""
    tensors = {f"weight.{n}": p.detach().cpu().clone() for n, p in module.named_parameters()}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            tensors[f"adam.{index}.{name}"] = torch.as_tensor(value).detach().cpu().clone()
    return tensors


@torch.no_grad()
def set_learner_tensors(
    module: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `learner_tensors` gave.

    Raises:
        ValueError: they are of another network.
    """
    stored = {n.removeprefix("weight."): t for n, t in tensors.items() if n.startswith("weight.")}
    own = dict(module.named_parameters())
    if {n: t.shape for n, t in stored.items()} != {n: p.shape for n, p in own.items()}:
        raise ValueError("the saved state is of another network; use another folder")
    for name, parameter in own.items():
        parameter.copy_(stored[name])
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("adam."):
            _, index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = value.clone()
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
