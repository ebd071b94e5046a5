"""Processes that record shards side by side, and end when their parent does.

They are started afresh ("spawn"), not forked: a fork copies the locks of torch's and the
simulator's threads in whatever state they are, and hangs there now and then. A script that calls
this needs the usual ``if __name__ == "__main__":``.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from typing import TypeVar

from magi_world.training.stopping import Stopped, clean_stop

R = TypeVar("R")
PATIENCE = 10.0  # seconds that a worker has to end by itself once it is told to stop
_told: list[Callable[[], bool]] = []  # whether the job that runs in this process is to stop


class Interrupted(Exception):
    """A worker was told to stop in the middle of a shard."""


def stopping() -> bool:
    """In a job of `run_jobs`, whether it has been told to stop; elsewhere False."""
    return any(told() for told in _told)


def _begin(stop: Event, parent: int, path: list[str]) -> None:
    """What a worker does first."""
    _told.append(stop.is_set)
    sys.path[:] = path
    # Ctrl-C reaches every process of the terminal; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(stop, parent), daemon=True).start()


def _watch(stop: Event, parent: int) -> None:
    """End this process with its parent, however that died, or if it does not stop when told."""
    told: float | None = None
    while True:
        time.sleep(0.5)
        if os.getppid() != parent:
            os._exit(1)
        if stop.is_set():
            told = told or time.monotonic()
            if time.monotonic() - told > PATIENCE:
                os._exit(1)


def run_jobs(
    job: Callable[..., R], arguments: Sequence[tuple[object, ...]], processes: int, name: str
) -> Iterator[R]:
    """``job(*arguments[i])`` for every i, in any order, in ``processes`` processes.

    Results are yielded as they come. The job looks at `stopping` and raises `Interrupted`. A
    single process is this one.

    Raises:
        Stopped: SIGINT or SIGTERM; no worker is left alive.
        ValueError: a worker died; what a job itself raises is raised here.
    """
    stopped = Stopped(f"{name} stopped; the same command goes on from here")
    if processes == 1:
        with clean_stop() as asked:
            _told.append(asked)
            try:
                for given in arguments:
                    yield job(*given)
            except Interrupted:
                raise stopped from None
            finally:
                _told.remove(asked)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    starter = (stop, os.getpid(), list(sys.path))
    with (
        clean_stop() as asked,
        ProcessPoolExecutor(min(processes, len(arguments)), context, _begin, starter) as pool,
    ):
        left: set[Future[R]] = {pool.submit(job, *given) for given in arguments}
        try:
            while left:
                done, left = wait(left, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
                if asked():
                    raise stopped
        except BrokenProcessPool as error:
            raise ValueError(
                f"{name}: a process died, most likely of too little memory (lower "
                "record.processes) or in the simulator itself"
            ) from error
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
