"""Generated frames a second, and the delay from a command to its picture: `magi-world bench`.

    python benchmarks/world.py [WORLD] [--chunks 60] [--batches 1 4 16]

One JSON line for each batch size.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from common import report

from magi_world.demos.bench import measure
from magi_world.loading import load_world


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("world", nargs="?", default="vizdoom-arena")
    parser.add_argument("--chunks", type=int, default=60)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    arguments = parser.parse_args()
    for num_worlds in arguments.batches:
        world = load_world(arguments.world, num_worlds)
        report("world", asdict(measure(world, arguments.chunks)))


if __name__ == "__main__":
    main()
