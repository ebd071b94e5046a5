"""Environment steps and frames a second: worlds in one batch against separate environments.

    python benchmarks/env_cpu.py [WORLD] [--counts 1 4 16] [--rounds 7] [--observation chunk]

Both kinds take turns within one run, and the median round counts, so that a busy machine is busy
for both. One JSON line for each count. A step is one chunk of one world.
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np
from common import report

from magi_world.envs import MagiWorldEnv, MagiWorldVectorEnv
from magi_world.loading import load_world
from magi_world.world.world import World

KILO = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("world", nargs="?", default="vizdoom-arena")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds of each kind")
    parser.add_argument("--steps", type=int, default=3, help="steps in a round")
    parser.add_argument("--observation", choices=["chunk", "frame", "latent"], default="chunk")
    arguments = parser.parse_args()
    world = load_world(arguments.world)
    for count in arguments.counts:
        figures = measure(world, count, arguments.rounds, arguments.steps, arguments.observation)
        report("env", {"world": world.spec.name, "observation": arguments.observation, **figures})


def measure(
    world: World, count: int, rounds: int, steps: int, observation: str
) -> dict[str, float]:
    """Figures of ``count`` worlds."""
    names = world.spec.command_names or ("go on",)
    before = memory_bytes()
    batch = MagiWorldVectorEnv(count, world, observation)
    batch.reset(seed=0)
    batch.step([names[0]] * count)
    grown = memory_bytes() - before
    separate = [MagiWorldEnv(world, observation) for _ in range(count)]
    rng = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {"batched": [], "separate": []}
    resets: dict[str, list[float]] = {"batched": [], "separate": []}
    busy: dict[str, list[float]] = {"batched": [], "separate": []}
    for number in range(rounds + 1):
        texts = [[str(t) for t in rng.choice(names, count)] for _ in range(steps)]
        begin = perf_counter()
        batch.reset(seed=number)
        middle, cpu = perf_counter(), process_time()
        for said in texts:
            batch.step(said)
        end, cpu = perf_counter(), process_time() - cpu
        if number:  # the first round warms up
            resets["batched"].append(middle - begin)
            seconds["batched"].append(end - middle)
            busy["batched"].append(cpu)
        begin = perf_counter()
        for i, env in enumerate(separate):
            env.reset(seed=number + i)
        middle, cpu = perf_counter(), process_time()
        for said in texts:
            for env, text in zip(separate, said, strict=True):
                env.step(text)
        end, cpu = perf_counter(), process_time() - cpu
        if number:
            resets["separate"].append(middle - begin)
            seconds["separate"].append(end - middle)
            busy["separate"].append(cpu)
    chunks = count * steps
    frames = world.spec.frames_per_chunk
    rates = {kind: chunks / median(times) for kind, times in seconds.items()}
    return {
        "worlds": count,
        "num_steps": world.parts.config.sampler.num_steps,
        "batched_steps_per_s": rates["batched"],
        "separate_steps_per_s": rates["separate"],
        "batched_frames_per_s": rates["batched"] * frames,
        "separate_frames_per_s": rates["separate"] * frames,
        "speedup": rates["batched"] / rates["separate"],
        "batched_cpu_ms_per_step": 1000 * median(busy["batched"]) / chunks,
        "separate_cpu_ms_per_step": 1000 * median(busy["separate"]) / chunks,
        "reset_all_batched_ms": 1000 * median(resets["batched"]),
        "reset_all_separate_ms": 1000 * median(resets["separate"]),
        "cache_mib_per_world": batch.world.cache_bytes / count / KILO**2,
        "memory_of_batch_mib": grown / KILO**2,
    }


def memory_bytes() -> int:
    """Memory that this process holds now (Linux)."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return next(int(s.split()[1]) for s in status.splitlines() if s.startswith("VmRSS")) * KILO


if __name__ == "__main__":
    main()
