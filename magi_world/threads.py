"""How many threads of the CPU torch may use, and what a forked process must do about them.

torch computes with a pool of OpenMP threads that wait by spinning. Where another program holds a
core they wait for each other: on two busy cores a step of a small world took seconds with two
threads and a tenth of a second with one. On idle cores all of them are best, for one world and for
a batch.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Literal

import torch

Threads = int | Literal["auto"]

_IMPORTED_BY = os.getpid()
_settled = False  # whether the number of this process has been decided


def settle_threads(threads: Threads | None, device: torch.device | None = None) -> None:
    """Set the number of torch's threads, for the whole process, before a world is used.

    Args:
        threads: a number; "auto": fewer than torch's own where this machine is busy, decided once a
            process, and left alone where somebody has chosen already (here, by ``OMP_NUM_THREADS``
            or ``OMP_WAIT_POLICY=PASSIVE``); None: as it is.
        device: where the world will be; None is the CPU. A GPU needs no choice.

    Raises:
        ValueError: no number from 1, and not "auto".
    """
    number = isinstance(threads, int) and not isinstance(threads, bool) and 1 <= threads <= 1024
    if not (number or threads in (None, "auto")):
        raise ValueError(
            f"threads is {threads!r:.60}; it must be a whole number from 1 to 1,024, 'auto' or None"
        )
    global _settled
    gpu = device is not None and device.type != "cpu"
    _survive_forks()
    if os.getpid() != _IMPORTED_BY:
        _after_fork()
    elif number:
        torch.set_num_threads(int(threads))  # type: ignore[arg-type]
    elif threads == "auto" and not (gpu or _settled or _chosen_outside()):
        torch.set_num_threads(
            free_threads(torch.get_num_threads(), usable_cores(), load_of_others())
        )
    _settled = _settled or threads is not None


def free_threads(usual: int, cores: int, load: float) -> int:
    """``usual`` threads, or fewer where other programs leave fewer cores.

    Args:
        usual: what torch uses by itself.
        cores: that this process may use.
        load: how many other threads want to run.
    """
    free = cores - load
    return usual if free >= usual else max(1, min(usual, round(free)))


def load_of_others() -> float:
    """How many threads of other programs want to run: now and for a minute; 0 if nobody says."""
    try:
        minute = os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows
        return 0.0
    try:
        with open("/proc/loadavg", encoding="ascii") as file:
            now = int(file.read().split()[3].partition("/")[0]) - 1  # without this thread
    except (OSError, ValueError, IndexError):
        return minute
    return min(minute, float(now))


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _chosen_outside() -> bool:
    waits = os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE"
    return waits or "OMP_NUM_THREADS" in os.environ


@cache
def _survive_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    # The pool's threads were not copied, and whoever waits for them waits for ever.
    torch.set_num_threads(1)
