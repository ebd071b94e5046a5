"""The first minutes on a card: does it run, where does the time go, what does each switch bring.

    python benchmarks/gpu_day.py [--part 1 2 3] [--limit 540] [--folder runs] [--dry-run]

Part 1: versions, bandwidth, products at the model's shapes, the reference numbers on the card,
attention kernels, tiles of the autoencoder. Part 2: the 4.5B model with random weights at 384 and
256, switch by switch, bfloat16 and fp8; the 24B model: its memory plan, and a chunk. Part 3:
shipped worlds at several batch sizes, the plain and the best layout again, five times in turn, and
then `train-world`: a rehearsal of every stage, and a training for as long as there is time left.

Every step is on its own: one that fails or that there is no time for is a line that says so, and
the next one runs. One JSON line a step, written at once. --dry-run runs all of it on a CPU with a
tiny model: its times mean nothing, that it gets to the end does. Exit status 1 if a step failed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import random_dit, report
from safetensors import safe_open

from magi_world.config import DiTConfig, SamplerConfig, VAEConfig
from magi_world.engine import EngineConfig, prepare_dit
from magi_world.io.released import PRESETS
from magi_world.loading import list_worlds, load_world
from magi_world.memory import plan_memory
from magi_world.model.attention import FLASH, Setting, attention, choice, obstacle, settle_backend
from magi_world.model.dit import DiT
from magi_world.model.tiling import TileConfig, Together, decode_tiled
from magi_world.model.vae import VAE
from magi_world.sampling.stream import ChunkStream, StreamConfig

ROOT = Path(__file__).parents[1]
DRY_SECONDS = 2  # of a training in a dry run
Figures = dict[str, Any]
Step = tuple[str, Callable[[], Figures]]
TINY = DiTConfig(
    layers=3, hidden=64, ffn=128, heads=4, kv_groups=2, head_dim=16, caption_channels=32
)
TINY_VAE = VAEConfig(
    width=32, depth=1, heads=2, mlp_ratio=2, video_size=32, video_length=8, final_proj=True
)
# What a layout is compared with, and then one switch after the other on top.
LADDER = [
    EngineConfig(),
    EngineConfig(permute_proj=True),
    EngineConfig(permute_proj=True, fuse_qkv=True),
    EngineConfig(permute_proj=True, fuse_qkv=True, clean_beside=True),
    EngineConfig(permute_proj=True, fuse_qkv=True, clean_beside=True, compile=True),
]
# Of small worlds, in float32.
SMALL = EngineConfig(permute_proj=True, fuse_heads=True, clean_beside=True)
BEST = replace(LADDER[-1], fast_accumulate=True, fused_quantise=True)


@dataclass(frozen=True)
class Day:
    """Where it runs and how large. chunks: that are timed a step, after two that are not.

    large: the second model.    limit: seconds a part.    folder: where worlds are trained.
    """

    device: torch.device
    model: DiTConfig
    sizes: tuple[int, ...]
    chunks: int
    repeats: int
    large: DiTConfig
    vae: VAEConfig
    limit: float
    folder: Path

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
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="of what is trained")
    parser.add_argument("--dry-run", action="store_true", help="tiny, on the CPU")
    given = parser.parse_args()
    if not given.dry_run and not torch.cuda.is_available():
        report("gpu_day", {"skipped": "no CUDA device on this machine; --dry-run needs none"})
        return 0
    presets = [PRESETS[f"magi-1-{size}"].dit for size in ("4.5b-distill", "24b-distill-fp8")]
    sizes, vae = (384, 256), VAEConfig()
    day = Day(
        torch.device("cuda"), presets[0], sizes, 4, 5, presets[1], vae, given.limit, given.folder
    )
    if given.dry_run:
        scratch = Path(tempfile.mkdtemp())
        large = replace(TINY, gated=True, duplicate_channels=True, fp8=True)
        day = Day(torch.device("cpu"), TINY, (32,), 1, 1, large, TINY_VAE, given.limit, scratch)
    failed = sum(run_part(day, part) for part in given.part)
    return int(failed > 0)


def run_part(day: Day, part: int) -> int:
    """One part; how many of its steps failed."""
    begin, failed = time.monotonic(), 0
    for name, step in PARTS[part](day):
        head = {"part": part, "step": name, "dry_run": day.dry}
        if time.monotonic() - begin > day.limit:
            report("gpu_day", {**head, "skipped": f"the part's {day.limit:g} seconds are over"})
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
    yield "goldens", partial(goldens, day)
    for size in day.sizes:
        yield f"tiles {size}", partial(tiles, day, size)
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


def goldens(day: Day) -> Figures:
    """The reference numbers, computed there: largest error of every case over what it may be."""
    sys.path.insert(0, str(ROOT))
    from tests.test_reference import check, tolerance

    folder, shares = ROOT / "tests" / "golden", {}
    for file in sorted(folder.glob("forward_*" if day.dry else "*.safetensors")):
        with safe_open(file, "pt") as case:
            told = (case.metadata() or {}).get("case")
            tensors = {name: case.get_tensor(name).to(day.device) for name in case.keys()}  # noqa: SIM118
        if told is not None:
            with torch.device(day.device):
                errors = check(json.loads(told), tensors, folder)
            shares[file.stem] = max(errors.values()) / tolerance(json.loads(told))
    wrong = [name for name, share in shares.items() if not share <= 1]
    if wrong:
        raise ValueError(f"over their tolerance: {wrong}")
    return {"cases": len(shares), "worst": max(shares.items(), key=lambda item: item[1])}


def tiles(day: Day, size: int) -> Figures:
    """Seconds to decode a chunk in the released tiles, one by one and in batches."""
    with torch.device(day.device):
        vae = VAE(day.vae).bfloat16().eval().requires_grad_(False)
    edge = 32 if day.dry else 256
    tile = TileConfig(edge, edge, 12)
    latents = day.random(1, day.vae.latent_channels, 6, size // 8, size // 8)
    alone = day.timed(lambda: decode_tiled(vae, latents, tile, False), day.repeats)
    spread = Together()
    batched = day.timed(lambda: decode_tiled(vae, latents, tile, False, spread), day.repeats)
    return {"seconds": alone, "in_batches": batched, "faster": alone / batched}


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
    """The large models, switch by switch."""
    for fp8 in (False, True):
        model = replace(day.model, fp8=fp8)
        for size in day.sizes:
            for engine in [*LADDER, BEST] if fp8 else LADDER:
                kind = f"{'fp8' if fp8 else 'bfloat16'} {size}"
                yield f"{kind} {switches(engine)}", partial(chunk, day, model, size, engine)
    yield "24b plan", partial(large_plan, day)
    yield "24b fp8", partial(chunk, day, day.large, day.sizes[-1], BEST)


def switches(engine: EngineConfig) -> str:
    """Names of what is on."""
    return "+".join(f.name for f in fields(engine) if getattr(engine, f.name)) or "plain"


def large_plan(day: Day) -> Figures:
    """What the second model needs of the card, by the plan."""
    config = replace(PRESETS["magi-1-24b-distill-fp8"], dit=day.large, frame_size=(256, 256))
    plan = plan_memory(config, tile=TileConfig(length=12), offload="all")
    total = 0 if day.dry else torch.cuda.mem_get_info(day.device)[1]
    return {"plan_gib": plan.total / 2**30, "card_gib": total / 2**30}


def chunk(day: Day, model: DiTConfig, size: int, engine: EngineConfig) -> Figures:
    """Seconds a chunk of 8 distilled steps, window 1, in the steady state."""
    work, dit = streaming(day, model, size, engine)
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
    day: Day, model: DiTConfig, size: int, engine: EngineConfig
) -> tuple[Callable[[], object], DiT]:
    """What denoises one more chunk, and the transformer that does."""
    dit = random_dit(model, torch.bfloat16, day.device)
    # A dry run is about this program, not about a compiler of the host's.
    prepare_dit(dit, engine, "eager" if day.dry else "inductor")
    sampler = SamplerConfig(num_steps=8, window_size=1, passes=1, distilled=True)
    stream = ChunkStream(dit, StreamConfig(sampler, (size // 8, size // 8), attention="auto"))
    stream.reset([0], [0], None)
    caption = stream.text_kv(torch.randn(64, dit.config.caption_channels))
    return partial(stream.stage, [0], [caption]), dit


def third_part(day: Day) -> Iterator[Step]:
    """Shipped worlds in batches, and the comparison that is reported."""
    for name in list_worlds()[: 1 if day.dry else None]:
        for worlds in (1,) if day.dry else (1, 16, 64):
            for engine in (EngineConfig(), SMALL, replace(SMALL, graphs=True)):
                step = f"{name} x{worlds} {switches(engine)}"
                yield step, partial(small_world, day, name, worlds, engine)
    for size in day.sizes:
        yield f"plain and best {size}", partial(compared, day, size)
    config = training_config(day)
    yield "rehearsal", partial(trained, day, config, day.limit / 3, "--check")
    yield "training", partial(trained, day, config, day.limit / 2)


def training_config(day: Day) -> Path:
    """What is trained: the default world, or in a dry run the toy of the tests."""
    if not day.dry:
        return ROOT / "configs" / "courtyard.yaml"
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "training")]
    from toy_world import write_config

    shutil.copy(ROOT / "tests" / "training" / "toy.py", day.folder)
    return write_config(day.folder / "toy.yaml")


def trained(day: Day, config: Path, limit: float, *flags: str) -> Figures:
    """`train-world` for so long; then it is stopped as by Ctrl-C, and could be taken up again."""
    command = [sys.executable, "-m", "magi_world", "train-world", str(config), *flags]
    command += ["--run", str(day.folder / config.stem), "--device", str(day.device)]
    begin, over = time.monotonic(), False
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )
    try:
        told, _ = process.communicate(timeout=DRY_SECONDS if day.dry else limit)
    except subprocess.TimeoutExpired:
        over = True
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=120)
    if process.returncode and not over:
        raise ValueError(f"train-world ended with {process.returncode}: {told[-500:]}")
    lines = told.replace("\r", "\n").splitlines()
    return {"seconds": time.monotonic() - begin, "stopped": over, "last_lines": lines[-20:]}


def small_world(day: Day, name: str, worlds: int, engine: EngineConfig) -> Figures:
    """Frames a second of a shipped world, decoded."""
    world = load_world(name, worlds, device=day.device, engine=engine)
    world.reset(seed=0)
    seconds = day.timed(world.step, 2 if day.dry else 10)
    frames = worlds * world.spec.frames_per_chunk
    return {"seconds_per_chunk": seconds, "frames_per_second": frames / seconds}


def compared(day: Day, size: int) -> Figures:
    """The plain layout and the best one in turn, in one process."""
    best = replace(BEST, compile=not day.dry)  # of a dry run the second part has compiled enough
    works = {
        name: streaming(day, day.model, size, engine)[0]
        for name, engine in (("plain", EngineConfig()), ("best", best))
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
