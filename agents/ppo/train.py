"""The training run: collect, learn, tell, save; stop at any time and go on as if nothing was.

Stable-Baselines3's PPO around our network. All that decides how a run goes on is kept in memory at
every update, and saved at times. Shapes: B worlds, n frames kept, k frames in a picture.
"""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from magi_world.agents.jobs import keep_config
from magi_world.agents.ppo.config import FREE, TrainAgentConfig
from magi_world.agents.ppo.envs import TrainingEnv, open_env
from magi_world.agents.ppo.policy import Eyes, NetworkConfig, PolicyRecord
from magi_world.agents.ppo.progress import (
    SCHEMA,
    Episodes,
    RunFolder,
    learner_tensors,
    losses,
    set_learner_tensors,
)
from magi_world.envs.sb3 import SB3VecEnv
from magi_world.envs.state import MAX_SEED, EnvSnapshot
from magi_world.interrupts import clean_stop
from magi_world.io.files import only_one
from magi_world.io.safetensors_io import load_tensors, save_tensors

try:
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.logger import Logger, configure
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
except ImportError as error:
    raise ImportError(
        "training an agent needs Stable-Baselines3; pip install 'magi-world[sb3]'"
    ) from error

QUIET_SECONDS = 10.0  # without an update, after which the run says how far it is
WORLDS, FRAMES = "worlds.safetensors", "frames.safetensors"
_FIELDS: dict[str, Any] = {
    "steps": int,
    "updates": int,
    "numpy": dict[str, Any],
    "python": list[Any],
    "running": dict[str, list[float]],
    "extra": dict[str, Any],
}


def train_agent(
    config: TrainAgentConfig,
    folder: str | Path,
    tell: Callable[[str], None] | None = None,
    env: TrainingEnv | None = None,
) -> Path:
    """Train a policy, or go on with a run that was stopped.

    Args:
        folder: of the run: ``policy.json`` and ``policy.safetensors`` at the end, ``checkpoints/``
            on the way, ``progress.csv``, ``tensorboard/`` where that package is, ``state/``.
        tell: called with a line an update.
        env: where to train, if not where ``config`` says.

    Returns:
        ``folder``.

    Raises:
        Stopped: a signal asked to stop; the state is saved.
        ValueError: an option that cannot be, or a folder with a run of another configuration.
        ImportError: the simulator is not installed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with only_one(folder / ".lock", str(folder)):
        keep_config(config, folder / "config.json", FREE, "trained", grows=("steps",))
        env = env or open_env(config, folder)
        try:
            with clean_stop() as asked:
                _Run(config, folder, env, asked, tell or (lambda line: None)).train()
        finally:
            env.envs.close()
    return folder


class EyesExtractor(BaseFeaturesExtractor):
    """`Eyes` as Stable-Baselines3 takes them; it has brought pictures to float (B, 3 k, H, W)."""

    def __init__(self, observation_space: Any, network: NetworkConfig) -> None:
        super().__init__(observation_space, network.features)
        self.eyes = Eyes(network)

    def forward(self, observations: Tensor) -> Tensor:
        # Stable-Baselines3 gives a transposed view, and the last bit of a convolution depends on
        # strides: a run that goes on from a saved picture would not be the same.
        return self.eyes(observations.contiguous())


def make_learner(
    config: TrainAgentConfig,
    env: TrainingEnv,
    rate: Callable[[float], float] | None = None,
    tensorboard: Path | None = None,
) -> PPO:
    """PPO at its first step; seeds torch, NumPy and Python, from which it draws.

    Args:
        rate: the learning rate, by the share of the run that is left.
        tensorboard: where its curves go, if the package tensorboard is there.
    """
    learner = PPO(
        "CnnPolicy",
        SB3VecEnv(env.envs),
        learning_rate=rate or config.learning_rate,
        n_steps=config.rollout,
        batch_size=config.batch,
        n_epochs=config.epochs,
        gamma=config.gamma,
        gae_lambda=config.gae,
        clip_range=config.clip,
        ent_coef=config.entropy,
        vf_coef=config.value,
        max_grad_norm=config.max_norm,
        policy_kwargs={
            "features_extractor_class": EyesExtractor,
            "features_extractor_kwargs": {"network": _record(config, env).network},
            "net_arch": [],
        },
        seed=config.seed,
        device=env.device,
    )
    wanted = tensorboard is not None and importlib.util.find_spec("tensorboard") is not None
    learner.set_logger(configure(str(tensorboard), ["tensorboard"]) if wanted else Logger(None, []))
    return learner


def policy_weights(learner: PPO) -> dict[str, Tensor]:
    """Weights of the policy under the names of `PolicyNet`; copies."""
    policy: Any = learner.policy
    parts = {
        "eyes": policy.features_extractor.eyes,
        "actor": policy.action_net,
        "critic": policy.value_net,
    }
    return {
        f"{part}.{name}": value.detach().cpu().clone()
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }


def _record(config: TrainAgentConfig, env: TrainingEnv) -> PolicyRecord:
    return PolicyRecord(
        env.commands, env.frame_size, config.stacking, config.features, env.name, env.fingerprint,
        training=asdict(config),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class RunState:
    """A run between two updates. It never changes.

    tensors: weights, optimiser, last picture, generators.    record: the rest, for JSON.
    episodes: those that are running, and the frames uint8 (B, n, H, W, 3) that their pictures are
        made of; None in a simulator, which begins new ones.
    """

    tensors: dict[str, Tensor]
    record: dict[str, Any]
    episodes: tuple[EnvSnapshot, np.ndarray] | None

    @classmethod
    def of(cls, learner: PPO, env: TrainingEnv, sums: Episodes, extra: dict[str, Any]) -> RunState:
        """The state now; ``extra`` is the caller's."""
        tensors = learner_tensors(learner.policy, learner.policy.optimizer)
        tensors["rng.torch"] = torch.get_rng_state()
        if env.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(env.device)
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
            "extra": extra,
        }
        kept = None
        if env.pictures is not None:
            kept = env.worlds.snapshot(), np.array(env.pictures.kept)
        return cls(tensors, json.loads(json.dumps(record)), kept)

    def put(self, learner: PPO, env: TrainingEnv, sums: Episodes) -> dict[str, Any]:
        """Make everything as it was; gives ``extra`` back.

        Raises:
            ValueError: the state is of another network or world.
        """
        record, tensors = self.record, self.tensors
        set_learner_tensors(learner.policy, learner.policy.optimizer, tensors)
        learner.num_timesteps, learner._n_updates = int(record["steps"]), int(record["updates"])
        if self.episodes is None or env.pictures is None:
            # New episodes, and not those that the run began with.
            assert learner.env is not None
            learner.env.seed(((learner.seed or 0) + learner.num_timesteps) % MAX_SEED)
        else:
            worlds, kept = self.episodes
            env.worlds.restore(worlds)
            env.pictures.kept = kept.copy()
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
        if "rng.cuda" in tensors and env.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"].clone(), env.device)
        return dict(record["extra"])

    def save(self, run: RunFolder) -> None:
        run.save_state(int(self.record["steps"]), self.tensors, self.record, self._save_episodes)

    def _save_episodes(self, folder: Path) -> None:
        if self.episodes is not None:
            worlds, kept = self.episodes
            worlds.save(folder / WORLDS)
            save_tensors(folder / FRAMES, {"kept": torch.from_numpy(kept)})

    @staticmethod
    def newest(run: RunFolder) -> RunState | None:
        """The newest one that was saved; None if there is none.

        Raises:
            ValueError: of another version, or damaged.
        """
        found = run.newest_state(_FIELDS)
        if found is None:
            return None
        place, tensors, record = found
        episodes = None
        if (place / WORLDS).exists():
            kept = load_tensors(place / FRAMES)["kept"].numpy().copy()
            episodes = EnvSnapshot.load(place / WORLDS), kept
        return RunState(tensors, record, episodes)


class _Run(BaseCallback):
    """Stable-Baselines3 calls it; between two updates it has the last word."""

    def __init__(
        self,
        config: TrainAgentConfig,
        folder: Path,
        env: TrainingEnv,
        asked: Callable[[], bool],
        tell: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.config, self.env, self.asked, self.tell = config, env, asked, tell
        self.run = RunFolder(folder, config, _record(config, env), env.frames_per_chunk, tell)
        self.sums, self.broken_off = Episodes(), False
        self.learner = make_learner(config, env, self.run.rate, folder / "tensorboard")
        self.state: RunState | None = RunState.newest(self.run)
        if self.state is not None:
            extra = self.state.put(self.learner, env, self.sums)
            self.run.clock, self.run.recent = extra["clock"], extra["recent"]
        self._begin_update()
        self.spoke = perf_counter()

    def train(self) -> None:
        total, done = self.config.total_steps, self.learner.num_timesteps
        if done < total:
            begun = f"going on at step {done}" if done else "beginning"
            self.tell(
                f"{begun}: {total} chunks in {self.env.name}, {self.config.num_envs} worlds at a "
                f"time, an update every {self.config.update_steps}; Ctrl-C saves, and the same "
                "command goes on"
            )
            self.learner.learn(total - done, self, log_interval=total, reset_num_timesteps=False)
            if not self.broken_off:
                self._boundary()
        if self.state is not None:
            self.state.save(self.run)
        if self.broken_off:
            raise self.run.stopped(0 if self.state is None else int(self.state.record["steps"]))
        self.run.keep(self.learner.num_timesteps, policy_weights(self.learner), last=True)

    def _on_step(self) -> bool:
        seen = self.locals
        self.sums.add(seen["rewards"], seen["dones"], seen["infos"])
        now = perf_counter()
        if now - self.spoke > QUIET_SECONDS:
            self.spoke = now
            done = self.learner.num_timesteps - self.begun["steps"]
            rate = done / (now - self.begun["time"])
            self.tell(
                f"{self.learner.num_timesteps:>7}/{self.config.total_steps}   collecting: {done} "
                f"of {self.config.update_steps} chunks before the next update, {rate:.1f} a second"
            )
        # A rollout that is broken off is collected again, the same, from the state before it.
        self.broken_off = self.asked()
        return not self.broken_off

    def _on_rollout_start(self) -> None:
        self._boundary()

    def _boundary(self) -> None:
        """Between two updates: a row, a checkpoint, the state."""
        steps = self.learner.num_timesteps
        if steps > self.begun["steps"]:
            self._row(steps)
        self._begin_update()
        extra = {"clock": self.run.clock, "recent": self.run.recent}
        self.state = RunState.of(self.learner, self.env, self.sums, extra)
        due = self.run.due(steps - self.config.update_steps, steps)
        if due:
            self.run.keep(steps, policy_weights(self.learner))
        if due or self.run.late():
            self.state.save(self.run)

    def _begin_update(self) -> None:
        self.begun: dict[str, Any] = {
            "steps": self.learner.num_timesteps,
            "time": perf_counter(),
            "world": self.env.envs.seconds,
        }

    def _row(self, steps: int) -> None:
        seconds = perf_counter() - self.begun["time"]
        world = self.env.envs.seconds - self.begun["world"]
        found = losses(self.logger.name_to_value)
        row = self.run.update(steps, seconds, world, self.sums.take(), found)
        for name, value in row.items():
            if name not in found and value is not None:
                self.logger.record(f"run/{name}", value)
        self.logger.dump(steps)
        self.spoke = perf_counter()
