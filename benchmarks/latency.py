"""From a key to the first picture that it shaped, in the window's own player, without a window.

    python benchmarks/latency.py [WORLD] [--seconds 120]

Keys are pressed at random moments and held for 0.3 s, so that every one of them has to cut into a
chunk. One JSON line: seconds (median, 95th percentile, largest), threads, frames shown a second.
"""

from __future__ import annotations

import os
import random
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from common import options, report, rounds

from magi_world.demos.bench import choose_threads
from magi_world.demos.window import jobs
from magi_world.demos.window.player import Player
from magi_world.demos.window.worker import Engine, Worker
from magi_world.loading import DEFAULT_WORLD, load_world

TICK = 1 / 120
PATIENCE = 20.0  # seconds, after which a key counts as not answered


def measure(world: str, seconds: float, seed: int = 0) -> dict[str, object]:
    """Press keys for so long; what came of it."""
    player = Player(Worker(Engine(load_world, tune=choose_threads)))
    chance = random.Random(seed)
    delays: list[float] = []
    frames: list[float] = []

    def run(seconds: float) -> None:
        end = time.perf_counter() + seconds
        while (now := time.perf_counter()) < end:
            player.tick(now)
            time.sleep(TICK)

    try:
        player.open(jobs.Open(world, jobs.Start(start="best")))
        while player.moment is None or player.moment.index < 4:
            run(0.1)
        arrows = [k for k in ("up", "left", "right", "down") if k in player.steering.keymap.keys]
        for _ in rounds(seconds, least=2):
            before = player.delay.count
            key = chance.choice(arrows)
            player.press(key)
            run(0.3)
            waited = time.perf_counter()
            while player.delay.count == before and time.perf_counter() - waited < PATIENCE:
                run(TICK)
            if player.delay.count > before:
                delays.append(player.delay.last or 0.0)
            frames.append(player.shown.fps(player.now))
            player.release(key)
            run(1.0 + chance.random())
        opened = player.opened
    finally:
        player.close()
    return {
        "world": world,
        "keys": len(frames),
        "answered": len(delays),
        "threads": None if opened is None else opened.threads,
        "median": float(np.median(delays)) if delays else None,
        "p95": float(np.percentile(delays, 95)) if delays else None,
        "largest": max(delays, default=None),
        "shown_fps": float(np.mean(frames)),
    }


if __name__ == "__main__":
    parser = options(__doc__, seconds=120)
    parser.add_argument("world", nargs="?", default=DEFAULT_WORLD)
    given = parser.parse_args()
    report("latency", measure(given.world, 0.0 if given.tiny else given.seconds))
