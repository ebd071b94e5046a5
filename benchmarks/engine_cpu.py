"""Seconds a chunk and memory of the engine on a CPU, beside the same mathematics written plainly.

    python benchmarks/engine_cpu.py [--chunks 40] [--plain-chunks 12] [--dtype bfloat16]

About 50 million parameters, latents 16x32x32, two of them a chunk, 8 distilled steps, window 4 and
1. One JSON line for each window: the cost of the second and of the last ten chunks, memory after
warm-up and at the end, and, over the same chunks, the plain version's time over the engine's.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import report
from plain import PlainStream
from tqdm import trange

from magi_world.config import DiTConfig, SamplerConfig
from magi_world.model.dit import DiT, parameter_dtype
from magi_world.sampling.captions import TextKeys
from magi_world.sampling.stream import ChunkStream, StreamConfig

SIZE, CHUNK_WIDTH = (32, 32), 2
DIT = DiTConfig(
    layers=12, hidden=512, ffn=2048, heads=8, kv_groups=2, head_dim=64, caption_channels=1024
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--chunks", type=int, default=40)
    parser.add_argument("--plain-chunks", type=int, default=12)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    arguments = parser.parse_args()
    dit = random_dit(DIT, getattr(torch, arguments.dtype))
    caption = torch.randn(24, DIT.caption_channels)
    for window in (4, 1):
        sampler = SamplerConfig(
            num_steps=8,
            window_size=window,
            chunk_width=CHUNK_WIDTH,
            passes=1,
            distilled=True,
        )
        stream = ChunkStream(dit, StreamConfig(sampler, SIZE))
        stream.reset([0], [0], None)
        keys = stream.caption(caption)
        plain = PlainStream(dit, sampler, SIZE)
        engine_times, plain_times, memory, worst = [], [], [], 0.0
        for i in trange(arguments.chunks, desc=f"window {window}"):
            seconds, ours = timed(next_chunk, stream, keys)
            engine_times.append(seconds)
            memory.append(resident())
            if i < arguments.plain_chunks:
                seconds, theirs = timed(plain.next_chunk, caption)
                plain_times.append(seconds)
                difference = (ours[0] - theirs).abs().max() / theirs.abs().max()
                if not torch.isfinite(difference):
                    raise ValueError("the two streams did not give finite numbers")
                worst = max(worst, float(difference))
        report(
            "engine_cpu",
            {
                "parameters": sum(p.numel() for p in dit.parameters()),
                "dtype": arguments.dtype,
                "window": window,
                "seconds_per_chunk_11_to_20": median(engine_times[10:20]),
                "seconds_per_chunk_last_10": median(engine_times[-10:]),
                "last_10_over_11_to_20": median(engine_times[-10:]) / median(engine_times[10:20]),
                "resident_mib_chunk_20": memory[min(19, len(memory) - 1)],
                "resident_mib_end": memory[-1],
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                "plain_chunks": len(plain_times),
                "plain_over_engine": sum(plain_times) / sum(engine_times[: len(plain_times)]),
                "plain_over_engine_last": plain_times[-1] / engine_times[len(plain_times) - 1],
                "largest_relative_difference": worst,
            },
        )


def random_dit(config: DiTConfig, dtype: torch.dtype) -> DiT:
    """Random weights whose stream neither dies nor explodes, each in its own precision."""
    torch.manual_seed(0)
    dit = DiT(config)
    state = {
        name: value.to(parameter_dtype(name, value.dtype, dtype))
        for name, value in dit.state_dict().items()
    }
    dit.load_state_dict(state, assign=True)
    return dit.eval().requires_grad_(False)


def next_chunk(stream: ChunkStream, keys: TextKeys) -> torch.Tensor:
    """Stages until a chunk lands."""
    while (landed := stream.stage([0], [keys])) is None:
        pass
    return landed


def timed(action: Callable[..., torch.Tensor], *arguments: Any) -> tuple[float, torch.Tensor]:
    """Seconds and result."""
    start = time.perf_counter()
    result = action(*arguments)
    return time.perf_counter() - start, result


def resident() -> int:
    """Memory of this process now, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 2**20


if __name__ == "__main__":
    main()
