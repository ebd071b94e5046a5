"""How many threads of the CPU a world is quickest with, here and now."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from magi_world.remote.world import RemoteWorld
from magi_world.world import World

GAIN = 0.87  # more threads must be at least this much quicker; the window needs a core as well
ROUNDS = 3
ENOUGH = 2.0  # seconds, after which no further round is begun


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
    world.reset(0)

    def step(threads: int) -> float:
        torch.set_num_threads(threads)
        begun = time.perf_counter()
        world.step()
        return time.perf_counter() - begun

    chosen = quickest((1, most), step)
    torch.set_num_threads(chosen)
    return chosen


def quickest(numbers: Sequence[int], seconds: Callable[[int], float]) -> int:
    """The number that takes least time; a larger one only where that pays.

    The first time of each is a warm-up, the shortest of the others counts: what else the machine
    does only ever adds to it.
    """
    begun = time.perf_counter()
    times: dict[int, list[float]] = {n: [] for n in numbers}
    for _ in range(ROUNDS + 1):
        for n in numbers:
            times[n].append(seconds(n))
        if time.perf_counter() - begun > ENOUGH:
            break
    best = {n: min(t[1:] or t) for n, t in times.items()}
    chosen = numbers[0]
    for n in numbers[1:]:
        if best[n] < GAIN * best[chosen]:
            chosen = n
    return chosen
