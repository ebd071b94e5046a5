"""Jobs handed one by one to processes that keep something costly open, such as a simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

from magi_world.threads import settle_threads

J = TypeVar("J")
R = TypeVar("R")


def served(start: Callable[[], Callable[[J], R]], jobs: Sequence[J], processes: int) -> Iterator[R]:
    """What the jobs come to, each as soon as it is done.

    Args:
        start: called once in every process; gives the function that does a job there. It must be
            picklable, and so must jobs and results.

    Raises:
        Whatever a job raised. RuntimeError: a process died.
    """
    # spawn: a forked copy of a process in which torch has threads may hang.
    context = get_context("spawn")
    waiting, busy = list(reversed(jobs)), {}
    threads = torch.get_num_threads()  # how sums are split decides their last bit
    try:
        for _ in range(processes):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, start, threads), daemon=True)
            process.start()
            there.close()
            here.send(waiting.pop())
            busy[here] = process
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection), "nothing else is waited for"
                try:
                    good, result = ready.recv()
                except EOFError:
                    raise RuntimeError("a worker process died; is there enough memory?") from None
                if not good:
                    raise result
                yield result
                if waiting:
                    ready.send(waiting.pop())
                else:
                    ready.send(None)
                    busy.pop(ready).join()
    finally:
        for process in busy.values():
            process.terminate()


def _serve(pipe: Connection, start: Callable[[], Callable[[Any], Any]], threads: int) -> None:
    settle_threads(threads)
    try:
        work = start()
        while (job := pipe.recv()) is not None:
            pipe.send((True, work(job)))
    except (KeyboardInterrupt, EOFError, BrokenPipeError):
        return  # the process that started this one says so, or is gone
    except Exception as error:
        pipe.send((False, error))
