"""`train_agent` with RLlib: worlds in batches on many runners, learning here, the same folder.

A runner is a process, here or on another machine of a Ray cluster, with a batch of worlds of its
own. One that dies is replaced, and the run goes on. The state of a run is weights and moments; its
running episodes are begun anew where it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from magi_world.agents.cluster import cluster
from magi_world.agents.jobs import keep_config
from magi_world.agents.ppo.config import FREE, TrainAgentConfig
from magi_world.agents.ppo.envs import dream_pictures, open_parts
from magi_world.agents.ppo.policy import Eyes, NetworkConfig, PolicyRecord
from magi_world.agents.ppo.progress import (
    SCHEMA,
    RunFolder,
    learner_tensors,
    set_learner_tensors,
)
from magi_world.envs.spaces import commands_of
from magi_world.interrupts import clean_stop
from magi_world.io.files import only_one

from ray.rllib.algorithms.ppo import PPO, PPOConfig  # isort: skip - Ray is looked for first
from ray.rllib.core import DEFAULT_MODULE_ID  # isort: skip
from ray.rllib.core.columns import Columns  # isort: skip
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI  # isort: skip
from ray.rllib.core.rl_module.rl_module import RLModuleSpec  # isort: skip
from ray.rllib.core.rl_module.torch import TorchRLModule  # isort: skip
from ray.tune.registry import register_env  # isort: skip

ENV = "magi-world-dream"
_FIELDS: dict[str, Any] = {"steps": int, "clock": dict[str, float], "recent": dict[str, Any]}
# our names -> RLlib's
_EPISODES = {
    "return": "episode_return_mean",
    "length": "episode_len_mean",
    "episodes": "num_episodes",
}
_LOSSES = {
    "policy_loss": "policy_loss",
    "value_loss": "vf_loss",
    "entropy": "entropy",
    "kl": "mean_kl_loss",
    "explained": "vf_explained_var",
}


def train_agent_with_rllib(
    config: TrainAgentConfig, folder: str | Path, tell: Callable[[str], None] | None = None
) -> Path:
    """As `magi_world.agents.ppo.train.train_agent`.

    Ray is started here unless it runs; with RAY_ADDRESS set it joins that cluster.

    Raises:
        Stopped: a signal asked to stop; the state is saved.
        ValueError: an option that cannot be, or a folder with a run of another configuration.
    """
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with only_one(folder / ".lock", str(folder)):
        keep_config(config, folder / "config.json", FREE, "trained", grows=("steps",))
        with cluster(), clean_stop() as asked:
            _Run(config, folder, asked, tell or (lambda line: None)).train()
    return folder


def make_env(context: Mapping[str, Any]) -> Any:
    """What a runner calls: a batch of worlds, with the ends and resets that RLlib expects."""
    config = replace(TrainAgentConfig(**context["config"]), num_envs=int(context["num_envs"]))
    torch.set_num_threads(int(context["threads"]))
    return dream_pictures(config, open_parts(config, Path(context["folder"])), "NEXT_STEP")


def make_algorithm(config: TrainAgentConfig, folder: Path, network: NetworkConfig) -> PPO:
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


class EyesModule(TorchRLModule, ValueFunctionAPI):
    """`PolicyNet`'s parts under its names; it is told its sizes by ``model_config["network"]``."""

    def setup(self) -> None:
        sizes = dict(self.model_config["network"])
        network = NetworkConfig(**{**sizes, "frame_size": tuple(sizes["frame_size"])})
        self.eyes = Eyes(network)
        self.actor = nn.Linear(network.features, network.commands)
        self.critic = nn.Linear(network.features, 1)
        # As Stable-Baselines3 begins: all commands are about equally likely.
        nn.init.orthogonal_(self.actor.weight, 0.01)
        nn.init.orthogonal_(self.critic.weight, 1.0)
        for layer in (self.actor, self.critic):
            nn.init.zeros_(layer.bias)

    def _forward(self, batch: dict[str, Any], **unused: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.actor(self._see(batch))}

    def _forward_train(self, batch: dict[str, Any], **unused: Any) -> dict[str, Any]:
        features = self._see(batch)
        return {
            Columns.ACTION_DIST_INPUTS: self.actor(features),
            Columns.EMBEDDINGS: features,
        }

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        """What the situations are worth, (B,)."""
        features = self._see(batch) if embeddings is None else embeddings
        return self.critic(features).squeeze(-1)

    def _see(self, batch: dict[str, Any]) -> Tensor:
        pictures = batch[Columns.OBS].permute(0, 3, 1, 2)
        return self.eyes(pictures.to(self.actor.weight.dtype).contiguous() / 255)


class _Run:
    def __init__(
        self,
        config: TrainAgentConfig,
        folder: Path,
        asked: Callable[[], bool],
        tell: Callable[[str], None],
    ) -> None:
        self.config, self.asked = config, asked
        spec = open_parts(config, folder).spec
        policy = PolicyRecord(
            config.commands or commands_of(spec),
            spec.frame_size,
            config.stacking,
            config.features,
            spec.name,
            spec.fingerprint,
            training=asdict(config),
        )
        self.run = RunFolder(folder, config, policy, spec.frames_per_chunk, tell)
        self.algorithm = make_algorithm(config, folder, policy.network)
        group = self.algorithm.learner_group
        assert group is not None and group.is_local  # noqa: PT018 - num_learners is 0
        self.learner: Any = group._learner
        self.module: EyesModule = self.learner.module[DEFAULT_MODULE_ID].unwrapped()
        self.optimiser = self.learner.get_optimizer(DEFAULT_MODULE_ID)
        self.steps = 0
        if (found := self.run.newest_state(_FIELDS)) is not None:
            _, tensors, record = found
            set_learner_tensors(self.module, self.optimiser, tensors)
            self.steps = record["steps"]
            self.run.clock, self.run.recent = record["clock"], record["recent"]
            self.algorithm.env_runner_group.sync_weights(
                from_worker_or_learner_group=group, inference_only=True
            )

    def train(self) -> None:
        try:
            while self.steps < self.config.total_steps:
                if self.asked():
                    self._save()
                    raise self.run.stopped(self.steps)
                self._update()
            self._save()
            self.run.keep(self.steps, self._weights(), last=True)
        finally:
            self.algorithm.stop()

    def _update(self) -> None:
        begin, total = perf_counter(), self.config.total_steps
        for group in self.optimiser.param_groups:
            group["lr"] = self.run.rate(1 - self.steps / total)
        result = self.algorithm.train()
        seconds = perf_counter() - begin
        sampling = float(result.get("timers", {}).get("env_runner_sampling_timer", 0.0))
        before, self.steps = self.steps, self.steps + self.config.update_steps
        runners = result.get("env_runners", {})
        learner = result.get("learners", {}).get(DEFAULT_MODULE_ID, {})
        found = {name: _number(runners.get(key)) for name, key in _EPISODES.items()}
        ended: dict[str, Any] = {"episodes": 0}
        if found["return"] is not None:
            ended = {**found, "episodes": int(found["episodes"] or 1)}
        losses = {name: _number(learner.get(key)) for name, key in _LOSSES.items()}
        self.run.update(self.steps, seconds, min(sampling, seconds), ended, losses)
        due = self.run.due(before, self.steps)
        if due:
            self.run.keep(self.steps, self._weights())
        if due or self.run.late():
            self._save()

    def _weights(self) -> dict[str, Tensor]:
        """Those of the policy under the names of `PolicyNet`; copies."""
        return {
            name: value.detach().cpu().clone()
            for name, value in self.module.state_dict().items()
            if name.split(".")[0] in ("eyes", "actor", "critic")
        }

    def _save(self) -> None:
        record = {
            "schema": SCHEMA,
            "steps": self.steps,
            "clock": self.run.clock,
            "recent": self.run.recent,
        }
        self.run.save_state(self.steps, learner_tensors(self.module, self.optimiser), record)


def _number(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    return None if number != number else number
