"""Start programs as torchrun does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0


def run_ranks(
    size: int, arguments: Sequence[str], patience: float = PATIENCE
) -> list[subprocess.CompletedProcess[str]]:
    """``python ARGUMENTS`` as ``size`` processes, each with its variables; what each one said."""
    return finish(start_ranks(size, arguments), patience)


def start_ranks(size: int, arguments: Sequence[str]) -> list[subprocess.Popen[str]]:
    """The same, without waiting."""
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=rank_environment(rank, size, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for rank in range(size)
    ]


def rank_environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun tells a process, without its agent."""
    return {
        **os.environ,
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }


def finish(
    processes: Sequence[subprocess.Popen[str]], patience: float = PATIENCE
) -> list[subprocess.CompletedProcess[str]]:
    """Wait for all; those that take too long are killed, and the test fails."""
    done = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=patience)
            done.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
    return done


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
