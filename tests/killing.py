"""Killing long jobs (SIGKILL) at any moment, again and again; how often is counted.

The jobs run in forks of this process, which know the package already.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable

import torch

KILLS: Counter[str] = Counter()  # job -> how often it was killed; `conftest` prints it


def forked(job: Callable[[], object]) -> int:
    """Run a job in a fork of this process; its number. It ends with 0 if the job did."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            job()
            status = 0
        finally:
            os._exit(status)
    return child


def killed(name: str, job: Callable[[], object], after: float) -> bool:
    """Run a job in a fork and kill it; whether it was done before.

    Raises:
        AssertionError: the job failed by itself.
    """
    child = forked(job)
    end = time.monotonic() + after
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, "the job failed by itself"
            return True
        time.sleep(0.002)
    kill(name, child)
    return False


def kill(name: str, child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    KILLS[name] += 1


def until_done(name: str, job: Callable[[], object], unit: float, kills: int) -> int:
    """Start a job again until it comes to its end, or was killed ``kills`` times and then is let.

    Args:
        unit: about how long it takes, in seconds, undisturbed.

    Returns:
        How often it was killed.
    """
    chance = random.Random(7)
    for number in range(kills):
        if killed(name, job, chance.uniform(0.01, 0.7) * unit):
            return number
    assert killed(name, job, 600), "left alone, it comes to its end"
    return kills


def took(job: Callable[[], object]) -> float:
    """Seconds."""
    begin = time.monotonic()
    job()
    return time.monotonic() - begin
