"""PPO of RLlib in a dream, one batch of worlds per runner; needs pip install "ray[rllib]".

python examples/rllib_ppo.py [WORLD]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import ray
from gymnasium.wrappers.vector import DtypeObservation, RescaleObservation
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_env

import magi_world


def dream(context: Mapping[str, Any]) -> gym.vector.VectorEnv:
    """A batch of worlds. RLlib resets in the following step, and sees fractions, not bytes."""
    envs = gym.make_vec(
        "magi_world:MagiWorld-v0", num_envs=context["num_envs"], world=context["world"],
        actions="discrete", observation="frame", max_chunks=8, autoreset_mode="NEXT_STEP",
    )  # fmt: skip
    return RescaleObservation(DtypeObservation(envs, np.float32), np.float32(0), np.float32(1))


def main(name: str) -> None:
    """One iteration."""
    register_env("dream", dream)
    config = (
        PPOConfig()
        .environment("dream", env_config={"world": name})
        # One forward pass for all worlds of a runner.
        .env_runners(
            num_env_runners=0, num_envs_per_env_runner=4, rollout_fragment_length=8,
            gym_env_vectorize_mode="vector_entry_point",
        )
        # RLlib has filters of its own for a few sizes of pictures only; these fit any.
        .rl_module(
            model_config=DefaultModelConfig(conv_filters=[[16, 4, 2], [32, 4, 2], [64, 4, 2]])
        )
        .training(train_batch_size_per_learner=64, minibatch_size=32, num_epochs=1)
    )  # fmt: skip
    ray.init(num_cpus=2, include_dashboard=False, ignore_reinit_error=True)
    algorithm = config.build_algo()
    result = algorithm.train()
    print(f"{result['env_runners']['num_env_steps_sampled']} chunks")
    algorithm.stop()
    ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else magi_world.list_worlds()[0])
