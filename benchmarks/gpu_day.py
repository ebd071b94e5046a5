"""The first minutes on a card: does it run, where does the time go, what does each switch bring.

    python benchmarks/gpu_day.py [--part 1 2 3] [--limit 540] [--dry-run]

Part 1: versions, bandwidth, products at the model's shapes, attention kernels. Part 2: the 4.5B
model with random weights at 384 and 256, switch by switch, bfloat16 and fp8. Part 3: shipped worlds
at several batch sizes, then the plain and the best layout again, five times in turn.

Every step is on its own: one that fails or that there is no time for is a line that says so, and
the next one runs. One JSON line a step, written at once. --dry-run runs all of it on a CPU with a
tiny model: its times mean nothing, that it gets to the end does. Exit status 1 if a step failed.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from statistics import median
from typing import Any

import torch
from common import report

from magi_world.config import DiTConfig, SamplerConfig
from magi_world.engine import EngineConfig, prepare_dit
from magi_world.io.released import PRESETS
from magi_world.loading import list_worlds, load_world
from magi_world.model.attention import FLASH, Setting, attention, choice, obstacle, settle_backend
from magi_world.model.dit import DiT, parameter_dtype
from magi_world.sampling.stream import ChunkStream, StreamConfig

Figures = dict[str, Any]
Step = tuple[str, Callable[[], Figures]]
TINY = DiTConfig(
    layers=3, hidden=64, ffn=128, heads=4, kv_groups=2, head_dim=16, caption_channels=32
)
# What a layout is compared with, and then one switch after the other on top.
LADDER = [
    EngineConfig(),
    EngineConfig(permute_proj=True),
    EngineConfig(permute_proj=True, fuse_qkv=True),
    EngineConfig(permute_proj=True, fuse_qkv=True, compile=True),
]
BEST = replace(LADDER[-1], fast_accumulate=True)


@dataclass(frozen=True)
class Day:
    """Where it runs and how large. chunks: that are timed a step, after two that are not."""

    device: torch.device
    model: DiTConfig
    sizes: tuple[int, ...]
    chunks: int
    repeats: int

    @property
    def dry(self) -> bool:
        """Whether the times mean anything."""
        return self.device.type != "cuda"

    def timed(self, work: Callable[[], object], repeats: int = 5) -> float:
        """Median seconds of a piece of work, the device's included."""
        times = []
        for _ in range(repeats + 1):
            self.wait()
            begin = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - begin)
        return median(times[1:])

    def wait(self) -> None:
        """Until the device has done everything."""
        if not self.dry:
            torch.cuda.synchronize()

    def random(self, *shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        """Normal numbers there."""
        return torch.randn(shape, device=self.device).to(dtype)


def main() -> int:
    """All parts that were asked for; 1 if a step failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--part", type=int, nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--limit", type=float, default=540, help="seconds a part")
    parser.add_argument("--dry-run", action="store_true", help="tiny, on the CPU")
    given = parser.parse_args()
    if not given.dry_run and not torch.cuda.is_available():
        report("gpu_day", {"skipped": "no CUDA device on this machine; --dry-run needs none"})
        return 0
    day = Day(torch.device("cuda"), PRESETS["magi-1-4.5b-distill"].dit, (384, 256), 4, 5)
    if given.dry_run:
        day = Day(torch.device("cpu"), TINY, (32,), 1, 1)
    failed = sum(run_part(day, part, given.limit) for part in given.part)
    return int(failed > 0)


def run_part(day: Day, part: int, limit: float) -> int:
    """One part; how many of its steps failed."""
    begin, failed = time.monotonic(), 0
    for name, step in PARTS[part](day):
        head = {"part": part, "step": name, "dry_run": day.dry}
        if time.monotonic() - begin > limit:
            report("gpu_day", {**head, "skipped": f"the part's {limit:g} seconds are over"})
            continue
        try:
            started = time.monotonic()
            report("gpu_day", {**head, **step(), "step_seconds": time.monotonic() - started})
        except Exception as error:
            failed += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{where.filename}:{where.lineno}"
            report("gpu_day", {**head, "error": f"{type(error).__name__}: {error}", "at": place})
        if not day.dry:
            torch.cuda.empty_cache()
    return failed


def first_part(day: Day) -> Iterator[Step]:
    """Does it run: bandwidth, products, attention."""
    yield "machine", partial(machine, day)
    yield "copy", partial(copy, day)
    yield "products", partial(products, day)
    tokens = 6 * (day.sizes[0] // 16) ** 2
    for kernel in ("sdpa", *FLASH, "magi"):
        for seen in (1, 2, 3, 4, 5):
            yield f"attention {kernel} {seen}", partial(attend, day, kernel, tokens, seen * tokens)
    for length in (17, 64, 131, 800):
        yield f"text sdpa {length}", partial(attend, day, "sdpa", tokens, length)


def machine(day: Day) -> Figures:
    """Versions, and what "auto" would take."""
    setting = Setting.of(day.device, torch.bfloat16, day.model.head_dim)
    return {
        "cuda": torch.version.cuda,
        "auto": choice(setting),
        "obstacles": {name: obstacle(name, setting) for name in (*FLASH, "magi")},
    }


def copy(day: Day) -> Figures:
    """Bytes read and written a second."""
    x = torch.zeros(2**20 if day.dry else 2**30, dtype=torch.uint8, device=day.device)
    return {"terabytes_per_second": 2 * x.nbytes / day.timed(x.clone) / 1e12}


def products(day: Day) -> Figures:
    """TFLOP/s of the two largest products of a layer, bfloat16."""
    rows, out = 6 * (day.sizes[0] // 16) ** 2, {}
    for name, wide in (("fc1", day.model.ffn), ("qkv", 2 * day.model.heads * day.model.head_dim)):
        a, b = day.random(rows, day.model.hidden), day.random(day.model.hidden, wide)
        seconds = day.timed(lambda a=a, b=b: a @ b)
        out[f"{name}_tflops"] = 2 * rows * day.model.hidden * wide / seconds / 1e12
    return out


def attend(day: Day, kernel: str, rows: int, keys: int) -> Figures:
    """One layer's attention of a chunk over ``keys`` keys."""
    cfg = day.model
    setting = Setting.of(day.device, torch.bfloat16, cfg.head_dim)
    if reason := obstacle(kernel, setting):
        return {"skipped": reason}
    if kernel == "magi":
        return {"skipped": "it is measured with batches of worlds"}
    backend = settle_backend(kernel, setting)
    q = day.random(1, rows, cfg.heads, cfg.head_dim)
    k, v = (day.random(1, keys, cfg.kv_groups, cfg.head_dim) for _ in range(2))
    seconds = day.timed(lambda: attention(q, k, v, backend))
    flop = 4 * rows * keys * cfg.heads * cfg.head_dim
    return {"seconds": seconds, "tflops": flop / seconds / 1e12}


def second_part(day: Day) -> Iterator[Step]:
    """The large model, switch by switch."""
    for fp8 in (False, True):
        rungs = [*LADDER, BEST] if fp8 else LADDER
        for size in day.sizes:
            for engine in rungs:
                kind = f"{'fp8' if fp8 else 'bfloat16'} {size}"
                yield f"{kind} {switches(engine)}", partial(chunk, day, fp8, size, engine)


def switches(engine: EngineConfig) -> str:
    """Names of what is on."""
    return "+".join(f.name for f in fields(engine) if getattr(engine, f.name)) or "plain"


def chunk(day: Day, fp8: bool, size: int, engine: EngineConfig) -> Figures:
    """Seconds a chunk of 8 distilled steps, window 1, in the steady state."""
    work, dit = streaming(day, fp8, size, engine)
    first = day.timed(work, 1)
    if not day.dry:
        torch.cuda.reset_peak_memory_stats()
    seconds = day.timed(work, day.chunks)
    peak = 0 if day.dry else torch.cuda.max_memory_allocated()
    return {
        "second_chunk_seconds": first,
        "seconds_per_chunk": seconds,
        "peak_gib": peak / 2**30,
        "layers": dit.config.layers,
    }


def streaming(
    day: Day, fp8: bool, size: int, engine: EngineConfig
) -> tuple[Callable[[], object], DiT]:
    """What denoises one more chunk, and the transformer that does."""
    dit = random_dit(replace(day.model, fp8=fp8), day.device)
    # A dry run is about this program, not about a compiler of the host's.
    prepare_dit(dit, engine, "eager" if day.dry else "inductor")
    sampler = SamplerConfig(num_steps=8, window_size=1, passes=1, distilled=True)
    stream = ChunkStream(dit, StreamConfig(sampler, (size // 8, size // 8), attention="auto"))
    stream.reset([0], [0], None)
    caption = stream.caption(torch.randn(64, dit.config.caption_channels))
    return partial(stream.stage, [0], [caption]), dit


def random_dit(config: DiTConfig, device: torch.device) -> DiT:
    """Random weights, each parameter in the precision that the released ones have."""
    with torch.device("meta"):
        dit = DiT(config)
    state = {}
    for name, value in dit.state_dict().items():
        stored = value.dtype if value.dtype == torch.float8_e4m3fn else torch.bfloat16
        scale = 0.0 if "norm" in name else 1.0 if "_scale" in name else 0.02
        random = torch.randn(value.shape, device=device) * scale
        if name.endswith("layer_norm.weight"):
            random += 1
        random = random.abs() + 0.01 if "_scale" in name else random
        state[name] = random.to(parameter_dtype(name, stored, torch.bfloat16))
    dit.load_state_dict(state, strict=True, assign=True)
    return dit.eval().requires_grad_(False)


def third_part(day: Day) -> Iterator[Step]:
    """Shipped worlds in batches, and the comparison that is reported."""
    for name in list_worlds()[: 1 if day.dry else None]:
        for worlds in (1,) if day.dry else (1, 16, 64):
            yield f"{name} x{worlds}", partial(small_world, day, name, worlds)
    for size in day.sizes:
        yield f"plain and best {size}", partial(compared, day, size)


def small_world(day: Day, name: str, worlds: int) -> Figures:
    """Frames a second of a shipped world, decoded."""
    world = load_world(name, worlds, device=day.device)
    world.reset(seed=0)
    seconds = day.timed(world.step, 2 if day.dry else 10)
    frames = worlds * world.spec.frames_per_chunk
    return {"seconds_per_chunk": seconds, "frames_per_second": frames / seconds}


def compared(day: Day, size: int) -> Figures:
    """The plain layout and the best one in turn, in one process."""
    works = {
        name: streaming(day, False, size, engine)[0]
        for name, engine in (("plain", EngineConfig()), ("best", BEST))
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(day.repeats):
        for name, work in works.items():
            times[name].append(day.timed(work, day.chunks))
    ratio = median(times["plain"]) / median(times["best"])
    return {**times, "plain_over_best": ratio}


PARTS = {1: first_part, 2: second_part, 3: third_part}

if __name__ == "__main__":
    sys.exit(main())
