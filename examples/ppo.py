"""PPO of Stable-Baselines3 in a dream; needs pip install "magi-world[sb3]".

python examples/ppo.py [WORLD [STEPS]]
"""

from __future__ import annotations

import sys

import gymnasium as gym
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

import magi_world
from magi_world.envs.sb3 import SB3VecEnv


def main(name: str, steps: int) -> None:
    """Learn, and say what an episode was worth."""
    envs = gym.make_vec(
        "magi_world:MagiWorld-v0", num_envs=4, world=name,
        actions="discrete", observation="image", max_chunks=8,
    )  # fmt: skip
    small = envs.single_observation_space.shape[0] < 36  # too low for the usual convolutions
    agent = PPO(
        "MlpPolicy" if small else "CnnPolicy", VecMonitor(SB3VecEnv(envs)),
        n_steps=16, batch_size=32, n_epochs=2, seed=0,
    )  # fmt: skip
    agent.learn(steps)
    returns = [episode["r"] for episode in agent.ep_info_buffer]
    print(f"{agent.num_timesteps} chunks, {sum(returns) / len(returns):.2f} an episode")
    envs.close()


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else magi_world.list_worlds()[0]
    main(chosen, int(sys.argv[2]) if len(sys.argv) > 2 else 2048)
