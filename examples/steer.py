"""Steer a world with words, go back, and look at two futures of one moment.

python examples/steer.py [WORLD]
"""

from __future__ import annotations

import sys

import numpy as np

import magi_world


def main(name: str) -> None:
    """Walk a little, then turn both ways from the same moment."""
    world = magi_world.load_world(name)
    commands = world.spec.command_names
    world.reset(seed=7)
    for command in commands[:3]:
        chunk = world.step(command)
        print(f"chunk {chunk.index[0]}: {chunk.prompts[0]}, brightness {chunk.frames.mean():.0f}")
    moment = world.snapshot()
    one, other = world.fork(2)
    pair = one.step(commands[0]).frames, other.step(commands[-1]).frames
    print(
        f"the two futures differ by {np.abs(pair[0].astype(int) - pair[1]).mean():.1f} grey levels"
    )
    world.restore(moment)
    same = (world.step(commands[0]).frames == pair[0]).all()
    print(f"taken back, the first future is {'the same' if same else 'another'}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else magi_world.list_worlds()[0])
