"""`train_agent` with RLlib: worlds in batches on many runners, learning here, the same folder.

A runner is a process, here or on another machine of a Ray cluster, with a batch of worlds of its
own. One that dies is replaced, and the run goes on. The state of a run is weights and moments; its
running episodes are begun anew where it goes on.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from magi_world.agents.learning.config import TrainAgentConfig, keep_config, write_json
from magi_world.agents.learning.network import NetworkConfig
from magi_world.agents.learning.places import dream_pictures, open_parts
from magi_world.agents.learning.policy import PolicyRecord, save_policy
from magi_world.agents.learning.progress import ProgressFile, told
from magi_world.agents.ray.cluster import cluster
from magi_world.agents.ray.module import EyesModule, policy_weights, set_policy_weights
from magi_world.io.weights import load_tensors, save_tensors
from magi_world.training.loop import Stopped, clean_stop

from ray.rllib.algorithms.ppo import PPO, PPOConfig  # isort: skip - Ray is looked for first
from ray.rllib.core import DEFAULT_MODULE_ID  # isort: skip
from ray.rllib.core.rl_module.rl_module import RLModuleSpec  # isort: skip
from ray.tune.registry import register_env  # isort: skip

ENV = "magi-world-dream"
_FLOOR = 0.1  # share of the learning rate that is left at the end


def train_agent_with_rllib(
    config: TrainAgentConfig, folder: str | Path, tell: Callable[[str], None] | None = None
) -> Path:
    """As `magi_world.agents.learning.train.train_agent`.

    Ray is started here unless it runs; with RAY_ADDRESS set it joins that cluster.

    Raises:
        Stopped: a signal asked to stop; the state is saved.
        ValueError: an option that cannot be, or a folder with a run of another configuration.
    """
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    keep_config(config, folder)
    with cluster(), clean_stop() as asked:
        _Run(config, folder, asked, tell or _silent).train()
    return folder


def make_env(context: Mapping[str, Any]) -> Any:
    """What a runner calls: a batch of worlds, with the ends and resets that RLlib expects."""
    config = TrainAgentConfig(**context["config"])
    torch.set_num_threads(int(context["threads"]))
    parts = open_parts(config, Path(context["folder"]))
    return dream_pictures(config, parts, num_envs=context["num_envs"], autoreset_mode="NEXT_STEP")


def make_algorithm(config: TrainAgentConfig, folder: Path, network: NetworkConfig) -> PPO:
    """RLlib's PPO at its first step."""
    register_env(ENV, make_env)
    made = (
        PPOConfig()
        .environment(
            ENV,
            env_config={
                "config": asdict(config),
                "folder": str(folder),
                "threads": torch.get_num_threads() if not config.env_runners else 1,
            },
            # What our environments give is what their spaces say; it is tested there.
            disable_env_checking=True,
        )
        .env_runners(
            num_env_runners=config.env_runners,
            num_envs_per_env_runner=config.num_envs,
            gym_env_vectorize_mode="vector_entry_point",
            num_gpus_per_env_runner=config.gpus_per_runner,
            rollout_fragment_length=config.rollout,
        )
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=EyesModule, model_config={"network": asdict(network)}
            )
        )
        .training(
            lr=config.learning_rate,
            gamma=config.gamma,
            lambda_=config.gae,
            clip_param=config.clip,
            entropy_coeff=config.entropy,
            vf_loss_coeff=config.value,
            vf_clip_param=float("inf"),
            use_kl_loss=False,
            grad_clip=config.max_norm,
            grad_clip_by="global_norm",
            num_epochs=config.epochs,
            minibatch_size=config.batch,
            train_batch_size_per_learner=config.update_steps,
        )
        .fault_tolerance(restart_failed_env_runners=True)
        .debugging(seed=config.seed, log_level="ERROR")
    )
    return made.build_algo()


class _Run:
    def __init__(
        self,
        config: TrainAgentConfig,
        folder: Path,
        asked: Callable[[], bool],
        tell: Callable[[str], None],
    ) -> None:
        self.config, self.folder, self.asked, self.tell = config, folder, asked, tell
        parts = open_parts(config, folder)
        self.spec = parts.spec
        self.commands = self.spec.command_names
        self.network = NetworkConfig(
            self.spec.frame_size, config.frames, len(self.commands), config.features
        )
        self.algorithm = make_algorithm(config, folder, self.network)
        self.steps, self.seconds = 0, 0.0
        self.recent: dict[str, Any] = {}
        self._go_on()
        self.rows = ProgressFile(folder / "progress.csv", self.steps)
        self.saved = perf_counter()

    def train(self) -> None:
        """To the end, or until a signal comes."""
        total = self.config.total_steps
        try:
            while self.steps < total:
                if self.asked():
                    self._save()
                    raise Stopped(
                        f"stopped at step {self.steps} of {total}; the same command goes on from "
                        f"{self.folder}"
                    )
                self._update()
            self._save()
            self._keep(self.folder)
        finally:
            self.algorithm.stop()

    def _update(self) -> None:
        begin, left = perf_counter(), 1 - self.steps / self.config.total_steps
        for group in self._optimiser.param_groups:
            group["lr"] = self.config.learning_rate * (_FLOOR + (1 - _FLOOR) * left)
        result = self.algorithm.train()
        seconds = perf_counter() - begin
        before, self.steps = self.steps, self.steps + self.config.update_steps
        self.seconds += seconds
        row = self._row(result, seconds)
        self.rows.add(row)
        total = self.config.total_steps
        self.tell(told(row, total, (total - self.steps) * self.seconds / self.steps))
        due = self._mark(self.steps) > self._mark(before)
        if due:
            self._keep(self.folder / "checkpoints" / f"step_{self.steps}")
        if due or perf_counter() - self.saved > self.config.save_seconds:
            self._save()

    def _mark(self, steps: int) -> int:
        return steps * self.config.checkpoints // self.config.total_steps

    def _row(self, result: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        runners = result.get("env_runners", {})
        learner = result.get("learners", {}).get(DEFAULT_MODULE_ID, {})
        done = self.config.update_steps
        sampling = float(result.get("timers", {}).get("env_runner_sampling_timer", 0.0))
        row: dict[str, Any] = {
            "steps": self.steps,
            "return": _number(runners.get("episode_return_mean")),
            "length": _number(runners.get("episode_len_mean")),
            "steps_per_s": done / seconds,
            "frames_per_s": done / seconds * self.spec.frames_per_chunk,
            "world_share": min(1.0, sampling / seconds),
            "seconds": self.seconds,
            "episodes": int(_number(runners.get("num_episodes")) or 0),
        }
        for name, key in (
            ("policy_loss", "policy_loss"),
            ("value_loss", "vf_loss"),
            ("entropy", "entropy"),
            ("kl", "mean_kl_loss"),
            ("explained", "vf_explained_var"),
        ):
            row[name] = _number(learner.get(key))
        if row["return"] is not None:
            self.recent = {name: row[name] for name in ("return", "length")}
        return row

    def _keep(self, folder: Path) -> None:
        """Write the policy as it is now."""
        record = PolicyRecord(
            self.commands,
            self.spec.frame_size,
            self.config.stacking,
            self.config.features,
            self.spec.name,
            self.spec.fingerprint,
            self.steps,
            asdict(self.config),
            {**self.recent, "seconds": self.seconds},
        )
        save_policy(folder, record, policy_weights(self._module))

    @property
    def _module(self) -> EyesModule:
        return self._learner.module[DEFAULT_MODULE_ID].unwrapped()

    @property
    def _learner(self) -> Any:
        group = self.algorithm.learner_group
        assert group is not None and group.is_local  # noqa: PT018 - num_learners is 0
        return group._learner

    def _save(self) -> None:
        """``state/step_N``: it gets its name when it is complete."""
        place = self.folder / "state" / f"step_{self.steps}"
        self.saved = perf_counter()
        if place.exists():
            return
        part = place.with_name(place.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        tensors = {f"weight.{n}": t for n, t in policy_weights(self._module).items()}
        for index, moments in enumerate(self._optimiser.state_dict()["state"].values()):
            for name, value in moments.items():
                tensors[f"adam.{index}.{name}"] = torch.as_tensor(value).detach().cpu().clone()
        save_tensors(part / "learner.safetensors", tensors)
        record = {"steps": self.steps, "seconds": self.seconds, "recent": self.recent}
        write_json(part / "state.json", record)
        os.replace(part, place)
        for other in place.parent.iterdir():
            if other != place:
                shutil.rmtree(other)

    def _go_on(self) -> None:
        """From the newest state, if there is one."""
        found = [p for p in (self.folder / "state").glob("step_*") if p.suffix != ".part"]
        if not found:
            return
        place = max(found, key=lambda path: int(path.name.removeprefix("step_")))
        record = json.loads((place / "state.json").read_text(encoding="utf-8"))
        tensors = load_tensors(place / "learner.safetensors")
        own = {n: t for n, t in tensors.items() if n.startswith("weight.")}
        set_policy_weights(self._module, {n.removeprefix("weight."): t for n, t in own.items()})
        moments: dict[int, dict[str, Any]] = {}
        for key, value in tensors.items():
            if key.startswith("adam."):
                _, index, name = key.split(".")
                moments.setdefault(int(index), {})[name] = value.clone()
        if moments:
            groups = self._optimiser.state_dict()["param_groups"]
            self._optimiser.load_state_dict({"state": moments, "param_groups": groups})
        self.steps, self.seconds = int(record["steps"]), float(record["seconds"])
        self.recent = dict(record["recent"])
        self.algorithm.env_runner_group.sync_weights(
            from_worker_or_learner_group=self.algorithm.learner_group, inference_only=True
        )

    @property
    def _optimiser(self) -> torch.optim.Optimizer:
        return self._learner.get_optimizer(DEFAULT_MODULE_ID)


def _number(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    return None if number != number else number


def _silent(line: str) -> None:
    """Nobody listens."""
