"""What long jobs have in common: processes that share the work, and a folder that says what of."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, fields
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import torch

from magi_world.io.files import write_text
from magi_world.io.records import build, read_json
from magi_world.threads import settle_threads

C = TypeVar("C")
J = TypeVar("J")
R = TypeVar("R")

_WORKER: dict[str, Any] = {}  # of a worker process: how it starts, and what does its jobs


def served(start: Callable[[], Callable[[J], R]], jobs: Sequence[J], processes: int) -> Iterator[R]:
    """What the jobs come to, each as soon as it is done, in any order.

    Args:
        start: called once in every process, to open what is costly there, such as a simulator;
            gives the function that does a job. It must be picklable, as jobs and results must.

    Raises:
        Whatever a job raised. RuntimeError: a process died.
    """
    # spawn: a forked copy of a process in which torch has threads may hang. How many threads there
    # are decides the last bit of sums.
    begin = (start, torch.get_num_threads())
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _open, begin)
    try:
        for done in as_completed([pool.submit(_work, job) for job in jobs]):
            yield done.result()
    except BrokenProcessPool:
        raise RuntimeError("a worker process died; is there enough memory?") from None
    except BaseException:  # nobody waits for the rest
        for process in (pool._processes or {}).values():  # Python 3.14: terminate_workers
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _open(start: Callable[[], Callable[[Any], Any]], threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one stops it
    Thread(target=_end_with_parent, daemon=True).start()
    settle_threads(threads)
    _WORKER["start"] = start


def _work(job: Any) -> Any:
    if "do" not in _WORKER:
        _WORKER["do"] = _WORKER["start"]()
    return _WORKER["do"](job)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()  # killed, it could not end this one
        os._exit(1)


def read_config(kind: type[C], path: Path) -> C | None:
    """The configuration that a job was begun with, from its folder; None if there is none.

    Raises:
        ValueError: it was written by another version.
    """
    if not path.exists():
        return None
    stored = read_json(path)
    if set(stored) != {f.name for f in fields(kind)}:  # type: ignore[arg-type]
        raise ValueError(f"{path} is of another version; its run cannot go on, use another folder")
    return build(kind, stored, str(path))


def keep_config(
    config: Any,
    path: Path,
    free: Sequence[str],
    begun: str = "begun",
    grows: Sequence[str] = (),
) -> None:
    """Write a job's configuration, or compare with the one that is there.

    Args:
        free: fields that may differ when the job goes on.
        grows: fields that may be larger when it goes on; they are written anew.

    Raises:
        ValueError: it was begun with another configuration; the message names the field.
    """
    stored = read_config(type(config), path)
    if stored is None:
        write_text(path, json.dumps(asdict(config), indent=1) + "\n")
        return
    grown = {}
    for name, value in asdict(config).items():
        before = getattr(stored, name)
        if name in grows and value > before:
            grown[name] = value
        elif name not in free and before != value:
            also = " or more" if name in grows else ""
            raise ValueError(
                f"{path.parent} was {begun} with {name} = {before!r}, not {value!r}; go on with "
                f"the same{also}, or use another folder"
            )
    if grown:
        write_text(path, json.dumps({**asdict(stored), **grown}, indent=1) + "\n")
