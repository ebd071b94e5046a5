"""PPO of RLlib in a dream, one batch of worlds per runner; needs pip install "ray[rllib]".

python examples/rllib_ppo.py [WORLD]
"""

from __future__ import annotations

import sys

import ray
from ray.rllib.algorithms.ppo import PPOConfig

import magi_world


def main(name: str) -> None:
    """One iteration."""
    config = (
        PPOConfig()
        .environment(
            "magi_world:MagiWorld-v0",
            env_config={
                "world": name, "actions": "discrete", "observation": "frame", "max_chunks": 8,
            },
        )
        # One forward pass for all worlds of a runner; RLlib resets in the following step.
        .env_runners(
            num_env_runners=0, num_envs_per_env_runner=4, rollout_fragment_length=8,
            gym_env_vectorize_mode="vector_entry_point",
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
