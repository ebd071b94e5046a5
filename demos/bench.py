"""How fast a world runs here: what a player and a trainer get, and with how many threads."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from magi_world.config import require
from magi_world.remote.world import RemoteWorld
from magi_world.threads import load_of_others, usable_cores
from magi_world.world.world import World

WARM_UP = 3


@dataclass(frozen=True)
class Figures:
    """Figures of one world.

    generated_fps: frames a second, of all worlds of the batch together.
    realtime: generated over shown, of one world; from 1 on it plays without waiting.
    chunk_ms_*: a whole step, denoising and decoding; with a window of 1 this is also how long a
        command takes to its first picture.
    memory_mib: the most that the process (on a GPU: its device memory) has held.
    """

    world: str
    num_worlds: int
    num_steps: int
    window_size: int
    frame_size: tuple[int, int]
    shown_fps: float
    chunks: int
    generated_fps: float
    realtime: float
    chunk_ms_p50: float
    chunk_ms_p95: float
    denoise_ms_p50: float
    decode_ms_p50: float
    memory_mib: int
    device: str
    threads: int


def measure(world: World, chunks: int, after: Callable[[], object] = lambda: None) -> Figures:
    """Step a world through its commands and take the time.

    Args:
        chunks: how many to measure; some more come first, to warm up.
        after: called after every measured chunk.

    Raises:
        ValueError: chunks is not positive.
    """
    require(chunks >= 1, f"chunks is {chunks}; it must be at least 1")
    spec, cuda = world.spec, world.device.type == "cuda"
    names = spec.command_names or ("go on",)
    world.reset(seed=0)
    denoise, decode = [], []
    for i in range(WARM_UP + chunks):
        begin = _now(world)
        chunk = world.step_latents(names[i % len(names)])
        middle = _now(world)
        world.decode(chunk)
        end = _now(world)
        if i >= WARM_UP:
            denoise.append(middle - begin)
            decode.append(end - middle)
            after()
    whole = np.add(denoise, decode)
    fps = spec.frames_per_chunk / float(whole.mean())
    peak = torch.cuda.max_memory_allocated(world.device) if cuda else _peak_memory()
    return Figures(
        world=spec.name,
        num_worlds=world.num_worlds,
        num_steps=world.parts.config.sampler.num_steps,
        window_size=world.parts.config.sampler.window_size,
        frame_size=spec.frame_size,
        shown_fps=spec.fps,
        chunks=chunks,
        generated_fps=fps * world.num_worlds,
        realtime=fps / spec.fps,
        chunk_ms_p50=_ms(whole, 50),
        chunk_ms_p95=_ms(whole, 95),
        denoise_ms_p50=_ms(denoise, 50),
        decode_ms_p50=_ms(decode, 50),
        memory_mib=peak // 2**20,
        device=torch.cuda.get_device_name(world.device) if cuda else "cpu",
        threads=torch.get_num_threads(),
    )


def _now(world: World) -> float:
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)
    return time.perf_counter()


def _ms(seconds: np.ndarray | list[float], percentile: float) -> float:
    return float(np.percentile(seconds, percentile)) * 1000


def _peak_memory() -> int:
    """Bytes, 0 where the system does not say; it counts in KiB, except macOS."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


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
    if load_of_others() <= BUSY * usable_cores():
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
