"""All that decides how a training run goes on: kept in memory at every update, saved at times.

``state/step_N/`` holds ``learner.safetensors``, ``state.json`` and, in a dream, the running
episodes. The folder gets its name when it is complete, so that a kill leaves the one before.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from magi_world.agents.learning.places import Place, PlaceState
from magi_world.agents.learning.ppo import PPO, learner_tensors, set_learner_tensors
from magi_world.agents.learning.progress import Episodes
from magi_world.envs.state import MAX_SEED
from magi_world.io.records import field, read_json
from magi_world.io.weights import load_tensors, save_tensors

SCHEMA = 1
_FIELDS: dict[str, Any] = {
    "steps": int,
    "updates": int,
    "numpy": dict[str, Any],
    "python": list[Any],
    "running": dict[str, list[float]],
    "extra": dict[str, Any],
}


@dataclass(frozen=True, eq=False)
class RunState:
    """A run between two updates. It never changes.

    tensors: weights, optimiser, last picture, generators.    record: the rest, for JSON.
    episodes: those that are running; None in a simulator, which begins new ones.
    """

    tensors: dict[str, Tensor]
    record: dict[str, Any]
    episodes: PlaceState | None

    @property
    def steps(self) -> int:
        """Chunks so far."""
        return int(self.record["steps"])

    @classmethod
    def of(cls, learner: PPO, place: Place, sums: Episodes, extra: dict[str, Any]) -> RunState:
        """The state now; ``extra`` is the caller's."""
        tensors = learner_tensors(learner)
        tensors["rng.torch"] = torch.get_rng_state()
        if place.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(place.device)
        tensors["last.obs"] = torch.from_numpy(np.array(learner._last_obs))
        tensors["last.starts"] = torch.from_numpy(np.array(learner._last_episode_starts))
        numpy_state: Any = np.random.get_state(legacy=False)  # noqa: NPY002 - PPO draws from it
        keys = {"key": numpy_state["state"]["key"].tolist(), "pos": numpy_state["state"]["pos"]}
        record = {
            "schema": SCHEMA,
            "steps": learner.num_timesteps,
            "updates": learner._n_updates,
            "numpy": {**numpy_state, "state": keys},
            "python": random.getstate(),
            "running": {name: total.tolist() for name, total in sums.running.items()},
            "extra": dict(extra),
        }
        return cls(tensors, json.loads(json.dumps(record)), place.snapshot())

    def put(self, learner: PPO, place: Place, sums: Episodes) -> dict[str, Any]:
        """Make everything as it was; gives ``extra`` back.

        Raises:
            ValueError: the state is of another network or world.
        """
        record, tensors = self.record, self.tensors
        set_learner_tensors(learner, tensors)
        learner.num_timesteps, learner._n_updates = self.steps, int(record["updates"])
        if self.episodes is None:
            # New episodes, and not those that the run began with.
            place.vec.seed(((learner.seed or 0) + self.steps) % MAX_SEED)
        else:
            place.restore(self.episodes)
            learner._last_obs = tensors["last.obs"].numpy().copy()
            learner._last_episode_starts = tensors["last.starts"].numpy().copy()
            sums.running = {n: np.array(total) for n, total in record["running"].items()}
        try:
            state = {**record["numpy"], "state": dict(record["numpy"]["state"])}
            state["state"]["key"] = np.array(state["state"]["key"], np.uint32)
            np.random.set_state(state)  # noqa: NPY002
            version, internal, gauss = record["python"]
            random.setstate((version, tuple(internal), gauss))
            torch.set_rng_state(tensors["rng.torch"].clone())
        except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise ValueError(f"the saved generators are damaged: {error!r:.120}") from error
        if "rng.cuda" in tensors and place.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"].clone(), place.device)
        return dict(record["extra"])

    def save(self, folder: Path) -> None:
        """Write it into ``folder``, then drop the ones before."""
        place = folder / f"step_{self.steps}"
        if place.exists():
            return
        part = folder / f"{place.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        save_tensors(part / "learner.safetensors", self.tensors)
        if self.episodes is not None:
            self.episodes.save(part)
        (part / "state.json").write_text(json.dumps(self.record), encoding="utf-8")
        os.replace(part, place)
        for other in folder.glob("step_*"):
            if other != place:
                shutil.rmtree(other)

    @staticmethod
    def newest(folder: Path) -> RunState | None:
        """The newest state in a folder; None if there is none.

        Raises:
            ValueError: of another version, or damaged.
        """
        found = [path for path in folder.glob("step_*") if path.name[5:].isdecimal()]
        if not found:
            return None
        place = max(found, key=lambda path: int(path.name[5:]))
        path = place / "state.json"
        record = read_json(path)
        schema = field(record, "schema", int, str(path))
        if schema != SCHEMA:
            raise ValueError(f"{place} has schema {schema}; this package reads {SCHEMA}")
        for name, kind in _FIELDS.items():
            field(record, name, kind, str(path))
        tensors = {n: t.clone() for n, t in load_tensors(place / "learner.safetensors").items()}
        return RunState(tensors, record, PlaceState.load(place))
