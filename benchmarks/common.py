"""What the benchmarks share: one JSON line a result, options, rounds that end in time, a model."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from magi_world.config import DiTConfig
from magi_world.model.dit import DiT, parameter_dtype


def report(what: str, figures: dict[str, Any], done: bool = True) -> None:
    """Print one line; floats are rounded to four significant digits.

    A long benchmark prints one whenever there is something new, with ``done`` False: whatever cuts
    it short, the last line is the result so far.
    """
    line = {
        "what": what,
        "done": done,
        "hardware": hardware(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit(),
        **figures,
    }
    print(json.dumps(rounded(line)), flush=True)


def note(text: str) -> None:
    """Say on stderr how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def rounded(value: Any) -> Any:
    """Floats to four significant digits, at any depth."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list | tuple) else value


def hardware() -> str:
    """Processor, its threads in use, and the GPU where there is one."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        name = next((s.split(":")[1].strip() for s in lines if s.startswith("model name")), name)
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads{gpu}"


def commit() -> str:
    """Short hash of the checkout, with + where files have changed since; "" outside of one."""
    here = Path(__file__).parent
    run = {"cwd": here, "capture_output": True, "text": True, "check": False}
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], **run).stdout.strip()
    dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], **run).stdout.strip()
    return head + ("+" if head and dirty else "")


def options(doc: str | None, seconds: float) -> argparse.ArgumentParser:
    """A parser with what every benchmark has: how long it measures, and a run that tries it."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=seconds, help="of measuring, about")
    parser.add_argument("--tiny", action="store_true", help="whether it runs; the figures are void")
    return parser


def rounds(seconds: float, least: int = 3) -> Iterator[int]:
    """0, 1, 2 ... until the time is over, but so many at least."""
    end, number = time.monotonic() + seconds, 0
    while number < least or time.monotonic() < end:
        yield number
        number += 1


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Seconds of a piece of work, and its result."""
    begin = time.perf_counter()
    result = work(*arguments)
    return time.perf_counter() - begin, result


def resident(what: str = "VmRSS", pid: int | str = "self") -> int:
    """Bytes of memory that a process holds now ("VmRSS") or held at most ("VmHWM"); Linux."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(s.split()[1]) * 1024 for s in lines if s.startswith(what)), 0)


def random_dit(
    config: DiTConfig, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> DiT:
    """Random weights whose stream neither dies nor explodes, each in its own precision.

    They are made on the device, and stored as a bfloat16 checkpoint stores them in such a stream.
    """
    stored = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32
    generator = torch.Generator(device or "cpu").manual_seed(0)
    with torch.device("meta"):
        dit = DiT(config)
    state = {}
    for name, value in dit.state_dict().items():
        fp8 = value.dtype == torch.float8_e4m3fn
        scale = 0.0 if "norm" in name else 1.0 if "_scale" in name else 0.02
        random = torch.randn(value.shape, generator=generator, device=device) * scale
        if name.endswith("layer_norm.weight"):
            random += 1
        if name == "rope.bands":
            random = 10000 ** -(torch.arange(len(value), device=device) / len(value))
        random = random.abs() + 0.01 if "_scale" in name else random
        state[name] = random.to(parameter_dtype(name, value.dtype if fp8 else stored, dtype))
    dit.load_state_dict(state, strict=True, assign=True)
    return dit.eval().requires_grad_(False)
