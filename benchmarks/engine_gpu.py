"""The 4.5B model with random weights on one GPU: seconds a chunk, matmul efficiency, memory.

    python benchmarks/engine_gpu.py [--chunks 6] [--sizes 256 384] [--attention sdpa]

8 distilled steps, window 1 and 4, one caption of 64 rows. One JSON line a run. "fraction of
ceiling" is the arithmetic of the run's matrix products over what the GPU reaches on one large
matrix product, measured in the same process. Without a GPU it says so and stops.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from statistics import median

import torch
from common import report

from magi_world.config import DiTConfig, SamplerConfig
from magi_world.io.released import PRESETS
from magi_world.model.dit import DiT, parameter_dtype
from magi_world.sampling import schedule
from magi_world.sampling.stream import ChunkStream, StreamConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--chunks", type=int, default=6)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 384])
    parser.add_argument("--attention", choices=("sdpa", "flash"), default="sdpa")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        report("engine_gpu", {"skipped": "no CUDA device on this machine"})
        return
    ceiling = {"bfloat16": matmul_ceiling(False), "fp8": matmul_ceiling(True)}
    for fp8 in (False, True):
        kind = "fp8" if fp8 else "bfloat16"
        dit = random_dit(replace(PRESETS["magi-1-4.5b-distill"].dit, fp8=fp8))
        for size in arguments.sizes:
            for window in (1, 4):
                sampler = SamplerConfig(num_steps=8, window_size=window, passes=1, distilled=True)
                figures = run(dit, sampler, size, arguments.chunks, arguments.attention)
                figures["matmul_ceiling_tflops"] = ceiling[kind]
                figures["fraction_of_ceiling"] = figures["tflops"] / ceiling[kind]
                report("engine_gpu", {"weights": kind, "size": size, "window": window, **figures})
        del dit
        torch.cuda.empty_cache()


def run(dit: DiT, sampler: SamplerConfig, size: int, chunks: int, attention: str) -> dict:
    """Seconds a chunk once the window is full, and what they cost."""
    latent = (size // 8, size // 8)
    torch.cuda.reset_peak_memory_stats()
    stream = ChunkStream(dit, StreamConfig(sampler, latent, attention=attention))
    stream.reset([0], [0], None)
    caption = stream.caption(torch.randn(64, dit.config.caption_channels))
    times = []
    while len(times) < chunks + 2:
        torch.cuda.synchronize()
        start = time.perf_counter()
        while stream.stage([0], [caption]) is None:
            pass
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    seconds = median(times[2:])
    return {
        "attention": attention,
        "seconds_per_chunk": seconds,
        "seconds_of_video_per_second": 1 / seconds,
        "frames_per_second": sampler.chunk_width * 4 / seconds,
        "tflops": arithmetic(dit.config, sampler, latent) / seconds / 1e12,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
        "finite": bool(torch.isfinite(stream.newest_clean).all()),
    }


def arithmetic(config: DiTConfig, sampler: SamplerConfig, latent: tuple[int, int]) -> float:
    """Floating-point operations of one chunk in a full pipeline: projections and attention."""
    tokens = sampler.chunk_width * latent[0] * latent[1] // config.patch**2
    wide = config.heads * config.head_dim
    keys = config.kv_groups * config.head_dim
    per_token = config.hidden * (2 * wide + 2 * keys + 2 * wide)
    per_token += config.hidden * config.ffn * (3 if config.gated else 2)
    grid = schedule.time_grid(sampler.num_steps, sampler.shortcut_mode)
    total = 0.0
    for step in range(sampler.num_steps):
        seen = [schedule.key_range(sampler, step)]
        # The solo copy belongs to the oldest chunk, which is in the last stage.
        last = step >= sampler.num_steps - sampler.steps_per_stage
        if last and float(grid[step]) > sampler.solo_above_t:
            seen.append(1)
        for chunks in seen:
            total += tokens * (per_token + 2 * wide * tokens * chunks)
    total += tokens * (per_token + 2 * wide * tokens)  # the clean chunk's keys
    return 2 * config.layers * total


def matmul_ceiling(fp8: bool, n: int = 8192) -> float:
    """TFLOP/s of one square matrix product, the best of several."""
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    one = torch.ones((), device="cuda")
    if fp8:
        a, b = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).t()

    def product() -> torch.Tensor:
        if fp8:
            return torch._scaled_mm(a, b, one, one, out_dtype=torch.bfloat16)
        return a @ b

    best = 1e9
    for _ in range(20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        product()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best / 1e12


def random_dit(config: DiTConfig) -> DiT:
    """Random weights made on the GPU, each parameter in its own precision."""
    with torch.device("meta"):
        dit = DiT(config)
    generator = torch.Generator("cuda").manual_seed(0)
    state = {}
    for name, value in dit.state_dict().items():
        dtype = parameter_dtype(name, value.dtype, torch.bfloat16)
        if "linear_proj" in name and dtype == torch.float32:
            dtype = torch.bfloat16  # as a bfloat16 checkpoint stores it
        scale = 0.0 if "norm" in name else 1.0 if "_scale" in name else 0.02
        random = torch.randn(value.shape, generator=generator, device="cuda") * scale
        if name.endswith("layer_norm.weight"):
            random += 1
        state[name] = (random.abs() + 0.01 if "_scale" in name else random).to(dtype)
    dit.load_state_dict(state, strict=True, assign=True)
    return dit.eval().requires_grad_(False)


if __name__ == "__main__":
    main()
