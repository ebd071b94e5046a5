"""Environment steps and frames a second: worlds in one batch against separate environments.

    python benchmarks/env_cpu.py [WORLD] [--counts 1 4 16] [--seconds 150]
    python benchmarks/env_cpu.py --layouts --seconds 60

Both kinds take turns within one run, and the median round counts, so that a busy machine is busy
for both. One JSON line; "speedup" is how many times more steps a second the batch makes than as
many separate environments. A step is one chunk of one world.
"""

from __future__ import annotations

from statistics import median
from time import process_time

import numpy as np
from common import options, report, resident, rounds, timed

from magi_world.envs import MagiWorldEnv, MagiWorldVectorEnv
from magi_world.loading import DEFAULT_WORLD, load_world
from magi_world.world.world import World


def main() -> None:
    parser = options(__doc__, seconds=150)
    parser.add_argument("world", nargs="?", default=DEFAULT_WORLD)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--observation", choices=["chunk", "frame", "latent"], default="chunk")
    parser.add_argument("--layouts", action="store_true", help="the world itself, plain and fast")
    parser.add_argument("--batch", type=int, default=16, help="worlds of the batch of --layouts")
    given = parser.parse_args()
    if given.layouts:
        figures = layouts(given.world, 2 if given.tiny else given.batch, given.seconds)
        report("env_cpu_layouts", {"world": given.world, **figures})
        return
    world = load_world(given.world)
    counts, seconds = ([2], 0.0) if given.tiny else (given.counts, given.seconds)
    # Larger batches take longer for a round.
    shares = {count: seconds * count / sum(counts) for count in counts}
    figures = {
        f"worlds_{count}": measure(world, count, share, given.observation)
        for count, share in shares.items()
    }
    report("env_cpu", {"world": world.spec.name, "observation": given.observation, **figures})


def measure(world: World, count: int, seconds: float, observation: str) -> dict[str, float]:
    """Figures of ``count`` worlds."""
    names = world.spec.command_names or ("go on",)
    before = resident()
    batch = MagiWorldVectorEnv(count, world, observation)
    batch.reset(seed=0)
    batch.step([names[0]] * count)
    grown = resident() - before
    separate = [MagiWorldEnv(world, observation) for _ in range(count)]
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {"batched": [], "separate": []}
    busy: dict[str, list[float]] = {"batched": [], "separate": []}
    for number in rounds(seconds, least=4):
        texts = [str(t) for t in rng.choice(names, count)]
        if number == 0:
            for env in separate:
                env.reset(seed=0)

        def alone(texts: list[str] = texts) -> None:
            for env, text in zip(separate, texts, strict=True):
                env.step(text)

        for kind, work in (("batched", lambda texts=texts: batch.step(texts)), ("separate", alone)):
            cpu = process_time()
            taken, _ = timed(work)
            if number:  # the first round warms up
                times[kind].append(taken)
                busy[kind].append(process_time() - cpu)
    rates = {kind: count / median(taken) for kind, taken in times.items()}
    frames = world.spec.frames_per_chunk
    return {
        "speedup": rates["batched"] / rates["separate"],
        **{f"{kind}_frames_per_s": rate * frames for kind, rate in rates.items()},
        **{f"{kind}_cpu_ms_per_step": 1e3 * median(t) / count for kind, t in busy.items()},
        "cache_mib_per_world": batch.world.cache_bytes / count / 2**20,
        "memory_of_batch_mib": grown / 2**20,
    }


def layouts(name: str, batch: int, seconds: float) -> dict[str, float]:
    """Frames a second, denoised and decoded: plain and fast, alone and in a batch."""
    parts = {"plain": load_world(name, engine=None), "fast": load_world(name)}
    kinds = {
        f"{layout}_{count}": world.another(count)
        for layout, world in parts.items()
        for count in (1, batch)
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for world in kinds.values():
        world.reset(seed=0)
        for _ in range(5):  # until the history is as long as it gets
            world.step_latents()
    for _ in rounds(seconds, least=2):
        for kind, world in kinds.items():
            # A batch takes about as long as so many chunks of one world.
            for _ in range(4 if world.num_worlds == 1 else 1):
                times[kind].append(timed(lambda world=world: world.step().frames)[0])
    frames = parts["plain"].spec.frames_per_chunk
    rates = {kind: kinds[kind].num_worlds * frames / median(t) for kind, t in times.items()}
    return {
        **{f"{kind}_frames_per_s": rate for kind, rate in rates.items()},
        "fast_over_plain_alone": rates["fast_1"] / rates["plain_1"],
        "fast_over_plain_batch": rates[f"fast_{batch}"] / rates[f"plain_{batch}"],
        "fast_batch_over_plain_alone": rates[f"fast_{batch}"] / rates["plain_1"],
    }


if __name__ == "__main__":
    main()
