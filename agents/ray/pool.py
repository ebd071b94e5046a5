"""Units of dreams on the workers of a Ray cluster, which share a file system with this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from magi_world.agents.dreaming import Pool, StartDreamer
from magi_world.agents.ray.cluster import cluster

import ray  # isort: skip - the cluster says what to install
from ray.exceptions import RayActorError, RayTaskError  # isort: skip

# A unit whose worker has died is given to others so often.
TRIES = 3


@ray.remote
class Worker:
    """A process with a batch of worlds."""

    def __init__(self, start: StartDreamer) -> None:
        self._dreamer = start()

    def dream(self, unit: int) -> int:
        """Dream a unit; its number."""
        return self._dreamer(unit)


def ray_pool(workers: int, gpus: float = 0.0) -> Pool:
    """Units on ``workers`` actors, each with ``gpus`` of a card; Ray is started where it is not."""

    def run(start: StartDreamer, units: Sequence[int]) -> Iterable[int]:
        return _dreamed(start, list(units), workers, gpus)

    return run


def _dreamed(start: StartDreamer, units: list[int], workers: int, gpus: float) -> Iterator[int]:
    with cluster():
        worker: Any = Worker  # an actor class: Ray gives it its methods
        make = worker.options(num_cpus=1, num_gpus=gpus).remote
        waiting, tries = list(reversed(units)), dict.fromkeys(units, 0)
        busy = {}
        for _ in range(min(workers, len(units))):
            actor, unit = make(start), waiting.pop()
            busy[actor.dream.remote(unit)] = actor, unit
        while busy:
            (ready, *_), _ = ray.wait(list(busy), num_returns=1)
            actor, unit = busy.pop(ready)
            try:
                yield ray.get(ready)
            except RayTaskError as error:
                raise error.as_instanceof_cause() from None
            except RayActorError:
                tries[unit] += 1
                if tries[unit] == TRIES:
                    raise RuntimeError(
                        f"unit {unit} has cost {TRIES} workers their lives; is there enough memory?"
                    ) from None
                waiting.append(unit)
                actor = make(start)
            if waiting:
                following = waiting.pop()
                busy[actor.dream.remote(following)] = actor, following
