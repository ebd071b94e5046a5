"""Plan by forking: every command is imagined in one batch, and the best one is taken.

python examples/fork_planning.py [WORLD [CHUNKS]]
"""

from __future__ import annotations

import sys

import numpy as np

import magi_world
from magi_world.envs import MagiWorldEnv

AHEAD = 2  # chunks that every future reaches


def best_command(env: MagiWorldEnv) -> str:
    """The command whose future is worth most, each held for `AHEAD` chunks."""
    futures = env.fork_batch(len(env.commands), autoreset_mode="NEXT_STEP")
    worth = np.zeros(futures.num_envs)
    alive = np.ones(futures.num_envs, bool)
    for _ in range(AHEAD):
        _, reward, ended, cut, _ = futures.step(env.commands)
        worth += reward * alive
        alive &= ~(ended | cut)
    return env.commands[int(worth.argmax())]


def main(name: str, chunks: int) -> None:
    """Play with it."""
    env = MagiWorldEnv(name, reward=None)
    env.reset(seed=0)
    total = 0.0
    for _ in range(chunks):
        command = best_command(env)
        _, reward, ended, _, info = env.step(command)
        total += reward
        print(f"chunk {info['chunk']}: {command}, reward {reward:.2f}")
        if ended:
            break
    print(f"in all {total:.2f}")


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else magi_world.list_worlds()[0]
    main(chosen, int(sys.argv[2]) if len(sys.argv) > 2 else 8)
