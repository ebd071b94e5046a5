"""Recording: shards of chunks, made side by side by processes that end when their parent does.

A shard is made from its own seed alone: shards can be recorded by several processes in any order, a
stopped run goes on with the shards that are missing, and a recording is reproduced from (config,
seed).

The processes are started afresh ("spawn"), not forked: a fork copies the locks of torch's and the
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
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from magi_world.interrupts import Stopped, clean_stop
from magi_world.simulator import ChunkSimulator, RecordConfig
from magi_world.training.data import shard_path, shard_row, write_shard
from magi_world.training.policies import make_policy

R = TypeVar("R")

PATIENCE = 10.0  # seconds that a worker has to end by itself once it is told to stop

_told: list[Callable[[], bool]] = []  # whether the job that runs in this process is to stop


class Interrupted(Exception):
    """A worker was told to stop in the middle of a shard."""


def stopping() -> bool:
    """In a job of `run_jobs`, whether it has been told to stop; elsewhere False."""
    return any(told() for told in _told)


def _begin(stop: Event, parent: int, path: list[str]) -> None:
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


def record_shard(config: RecordConfig, index: int, path: Path) -> int:
    """Record shard ``index`` and put it at ``path`` in one move. Returns its number of chunks."""
    rng = np.random.default_rng([config.seed, index])
    simulator = ChunkSimulator(config)
    policy = make_policy(config, simulator, rng)
    rows: list[dict[str, Any]] = []
    episode = 0
    while len(rows) < config.chunks_per_shard:
        simulator.reset(int(rng.integers(2**31)))
        policy.reset()
        for _ in range(config.max_chunks_per_episode):
            chunk = simulator.chunk(simulator.commands.index(policy.command()))
            rows.append(shard_row(chunk, episode))
            if stopping():
                simulator.close()
                raise Interrupted
            if rows[-1]["end"] or len(rows) == config.chunks_per_shard:
                break
        episode += 1
    simulator.close()
    return write_shard(config, rows, path)


def record(config: RecordConfig, folder: str | Path) -> Path:
    """Record what is missing of ``config`` in ``folder``; the last shards are the held-out ones.

    Returns:
        The folder.

    Raises:
        Stopped: SIGINT or SIGTERM; finished shards are kept.
        ValueError: the simulator or the policy is not as the configuration says.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [i for i in range(config.shards) if not shard_path(folder, i).exists()]
    if not missing:
        return folder
    bar = tqdm(
        total=config.chunks,
        initial=config.chunks_per_shard * (config.shards - len(missing)),
        desc="record",
        unit="chunk",
    )
    if config.source.startswith("minari:"):
        from magi_world.training.datasets import record_dataset

        with bar:
            record_dataset(config, folder, bar.update)
        return folder
    jobs = [(config, i, shard_path(folder, i)) for i in missing]
    with bar:
        for chunks in run_jobs(record_shard, jobs, config.processes, "record"):
            bar.update(chunks)
    return folder


@dataclass(frozen=True, eq=False)
class Played:
    """What happened while the recording's policy played.

    rows: (episode, chunk), the chunk as `ChunkSimulator` makes it; lengths: of the episodes, in
    chunks; seconds: of one chunk.
    """

    rows: list[tuple[int, Any]]
    lengths: list[int]
    seconds: float


def play(config: RecordConfig, seconds: float, most: int = 120, seed: int = 0) -> Played:
    """Hold every command once, then let the policy play.

    Raises:
        ValueError: an action, event, picture or policy that is not as the configuration says.
    """
    if config.source.startswith("minari:"):
        return _play_dataset(config, most)
    simulator = ChunkSimulator(config)
    rng = np.random.default_rng([seed, 7])
    rows: list[tuple[int, Any]] = []
    lengths: list[int] = []
    try:
        policy = make_policy(config, simulator, rng)
        for row in range(len(simulator.commands)):
            # Making a new episode may take seconds.
            if not rows or rows[-1][1].ended or rows[-1][1].cut:
                simulator.reset(int(rng.integers(2**31)))
            rows.append((-1 - row, simulator.chunk(row)))
        held, begun = len(rows), time.monotonic()
        while not lengths or (time.monotonic() - begun < seconds and len(rows) < most):
            simulator.reset(int(rng.integers(2**31)))
            policy.reset()
            lengths.append(0)
            while lengths[-1] < config.max_chunks_per_episode:
                said = policy.command()
                if said not in simulator.commands:
                    raise ValueError(
                        f"record.policy {config.policy!r} says {said!r}, which is none of "
                        f"{simulator.commands}"
                    )
                rows.append((len(lengths), simulator.chunk(simulator.commands.index(said))))
                lengths[-1] += 1
                over = rows[-1][1].ended or rows[-1][1].cut
                late = time.monotonic() - begun > seconds or len(rows) >= most
                if over or (late and lengths[-1] > 16):
                    break
        return Played(rows, lengths, (time.monotonic() - begun) / (len(rows) - held))
    finally:
        simulator.close()


def _play_dataset(config: RecordConfig, most: int) -> Played:
    from magi_world.training.datasets import dataset_episodes

    begun = time.monotonic()
    rows: list[tuple[int, Any]] = []
    lengths: list[int] = []
    for i, chunks in enumerate(dataset_episodes(config)):
        rows += [(i, chunk) for chunk in chunks]
        lengths.append(len(chunks))
        if len(rows) >= most:
            break
    if not rows:
        raise ValueError(f"{config.source} has no whole chunk")
    return Played(rows, lengths, (time.monotonic() - begun) / len(rows))
