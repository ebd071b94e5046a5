"""Tiny places to learn in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from magi_world.agents.ppo.config import TrainAgentConfig
from magi_world.agents.ppo.envs import TimedEnvs, TrainingEnv, dream_env
from tests.envs.worlds import FAST, heads
from tests.tiny import COMMANDS, FRAME_SIZE, tiny_parts

SMALL = TrainAgentConfig(
    num_envs=2, horizon=3, rollout=4, batch=8, steps=40, epochs=2, features=16, checkpoints=5
)


def tiny_dream(config: TrainAgentConfig = SMALL) -> TrainingEnv:
    """Two tiny worlds with random heads, some of whose episodes end by themselves."""
    parts = tiny_parts()
    spec = replace(parts.spec, fps=FAST)
    return dream_env(config, replace(parts, spec=spec, heads=heads(-1.0)))


class Signs(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """A bright third of the picture says which command is worth 1; episodes of four steps."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int, channels: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space = Box(0, 255, (*FRAME_SIZE, channels), np.uint8)
        self.single_action_space = Discrete(3)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.rng, self.age = np.random.default_rng(0), 0

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        return self._next(), {}

    def step(self, actions: Any) -> tuple[np.ndarray, Any, Any, Any, dict[str, Any]]:
        rewards = (np.asarray(actions) == self.signs).astype(np.float64)
        self.age += 1
        cut = np.full(self.num_envs, self.age % 4 == 0)
        seen = self._next()
        infos = {"final_obs": seen.copy(), "_final_obs": cut} if cut.any() else {}
        return seen, rewards, np.zeros(self.num_envs, bool), cut, infos

    def _next(self) -> np.ndarray:
        self.signs = self.rng.integers(3, size=self.num_envs)
        seen = np.zeros(self.observation_space.shape or (), np.uint8)
        for row, sign in enumerate(self.signs):
            seen[row, :, sign * 16 : sign * 16 + 16] = 200
        return seen


def sign_env(config: TrainAgentConfig) -> TrainingEnv:
    """`Signs` to train in; its episodes cannot be kept."""
    return TrainingEnv(
        TimedEnvs(Signs(config.num_envs, 3 * config.frames)),
        name="signs",
        fingerprint="",
        commands=COMMANDS[:3],
        frame_size=FRAME_SIZE,
        frames_per_chunk=8,
        device=torch.device("cpu"),
    )


def figures(folder: Path) -> list[dict[str, str]]:
    """Rows of a run's progress, without what the clock says."""
    from magi_world.agents.ppo.progress import read_rows

    clock = ("steps_per_s", "frames_per_s", "world_share", "seconds")
    rows = read_rows(folder / "progress.csv")
    return [{k: v for k, v in row.items() if k not in clock} for row in rows]
