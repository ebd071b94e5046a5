"""How many threads of the CPU a world is quickest with, here and now."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

import torch

from magi_world.remote.world import RemoteWorld
from magi_world.world.world import World

GAIN = 0.87  # more threads must be at least this much quicker; the window needs a core as well
ROUNDS = 2
ENOUGH = 1.5  # seconds, after which nothing more is measured
HOPELESS = 2.0  # times as long as one thread: a chunk is given up there
BUSY = 1.5  # programs a core that want to run; several threads then only wait for one another


class _HopelessError(Exception):
    """This number of threads takes far too long."""


def choose_threads(world: World, most: int | None = None) -> int | None:
    """Make the world's chunks with as many threads as is quickest; how many that is.

    One thread is compared with ``most`` (by default torch's number): on a machine that does other
    work as well, several wait for each other and are many times slower than one. The world is
    stepped; reset it afterwards. What is set is set for the calling thread, too, which is why the
    thread that steps the world must call it.

    Returns:
        None where it makes no difference: on a GPU, on another machine, or with a single core.
    """
    if isinstance(world, RemoteWorld):
        return None
    most = torch.get_num_threads() if most is None else most
    if world.device.type != "cpu" or most <= 1:
        return None
    chosen = 1
    if not _busy():
        world.reset(0)
        chosen = quickest((1, most), lambda threads, limit: _seconds(world, threads, limit))
    torch.set_num_threads(chosen)
    return chosen


def quickest(numbers: Sequence[int], seconds: Callable[[int, float], float]) -> int:
    """The number that takes least time; a larger one only where that pays.

    ``seconds(number, limit)`` measures one, and need not go on beyond the limit. The first time of
    each is a warm-up where there is another; the shortest of the others counts, because what else
    the machine does only ever adds to it.
    """
    begun = time.perf_counter()
    best: dict[int, float] = {}
    for n in numbers:
        limit = HOPELESS * min(best.values(), default=float("inf"))
        times: list[float] = []
        for _ in range(ROUNDS + 1):
            times.append(seconds(n, limit))
            if times[-1] > limit or time.perf_counter() - begun > ENOUGH:
                break
        best[n] = min(times[1:] or times)
    chosen = numbers[0]
    for n in numbers[1:]:
        if best[n] < GAIN * best[chosen]:
            chosen = n
    return chosen


def _seconds(world: World, threads: int, limit: float) -> float:
    torch.set_num_threads(threads)
    begun = time.perf_counter()

    def progress(done: int, total: int) -> None:
        # As soon as the whole chunk would take too long.
        if (time.perf_counter() - begun) * total / max(1, done) > 2 * limit:
            raise _HopelessError

    try:
        world.step(progress=progress)
    except _HopelessError:
        return float("inf")
    return time.perf_counter() - begun


def _busy() -> bool:
    """Whether more wants to run than there are cores for, where the system tells."""
    try:
        return os.getloadavg()[0] > BUSY * (os.cpu_count() or 1)
    except (AttributeError, OSError):
        return False
