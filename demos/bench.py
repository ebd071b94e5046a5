"""How fast a world runs here: what a player and a trainer will get."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from magi_world.config import require
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
