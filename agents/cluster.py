"""Ray: a cluster for the length of a job, and units of dreams on its workers, which share a file
system with this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from magi_world.agents.dreaming import Pool, StartDreamer

try:
    import ray
    from ray.exceptions import RayActorError, RayTaskError
except ImportError as error:
    raise ImportError(
        "this needs Ray; pip install 'magi-world[ray]' (into an environment of its own: it pins "
        "gymnasium)"
    ) from error

# Ray gives a node half a minute to start, which a busy machine does not always do.
TRIES = 3
# A unit whose worker has died is given to others so often.
LIVES = 3


@contextmanager
def cluster() -> Iterator[None]:
    """Ray within the block: the one that runs, or one started here, for the block alone.

    With the variable RAY_ADDRESS set, Ray joins that cluster.

    Raises:
        ConnectionError: Ray cannot be started or joined.
    """
    if ray.is_initialized():
        yield
        return
    for attempt in range(TRIES):
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            break
        # Ray has no class for it: a bare Exception says that the node was too slow.
        except Exception as error:
            ray.shutdown()
            if attempt + 1 == TRIES:
                raise ConnectionError(f"Ray did not start: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


@ray.remote
class Worker:
    """A process with a batch of worlds."""

    def __init__(self, start: StartDreamer) -> None:
        self._dreamer = start()

    def dream(self, unit: int) -> int:
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
                if tries[unit] == LIVES:
                    raise RuntimeError(
                        f"unit {unit} has cost {LIVES} workers their lives; is there enough memory?"
                    ) from None
                waiting.append(unit)
                actor = make(start)
            if waiting:
                following = waiting.pop()
                busy[actor.dream.remote(following)] = actor, following
