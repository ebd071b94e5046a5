"""A collector of Tianshou in a dream; needs pip install tianshou.

python examples/tianshou_collect.py [WORLD]
"""

from __future__ import annotations

import sys

import gymnasium as gym
from tianshou.algorithm.random import MARLRandomDiscreteMaskedOffPolicyAlgorithm
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv

import magi_world


def main(name: str) -> None:
    """Eight chunks of random play in two worlds."""
    options = {"world": name, "actions": "discrete", "observation": "frame", "max_chunks": 4}
    envs = DummyVectorEnv([lambda: gym.make("magi_world:MagiWorld-v0", **options)] * 2)
    random = MARLRandomDiscreteMaskedOffPolicyAlgorithm(action_space=envs.action_space[0])
    collector = Collector(random, envs, VectorReplayBuffer(64, 2))
    collector.reset()
    stats = collector.collect(n_step=8, random=True)
    print(f"{stats.n_collected_steps} chunks, {stats.n_collected_episodes} episodes")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else magi_world.list_worlds()[0])
