"""One JSON line a result: what was measured, on what, at which commit, and the figures."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch


def report(what: str, figures: dict[str, Any]) -> None:
    """Print one line; floats are rounded to four significant digits."""
    line = {
        "what": what,
        "hardware": hardware(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit(),
        **{k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in figures.items()},
    }
    print(json.dumps(line), flush=True)


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
