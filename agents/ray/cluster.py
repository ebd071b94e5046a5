"""A Ray cluster for the length of a job: the one that is there, or one started here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

try:
    import ray
except ImportError as error:
    raise ImportError(
        "this needs Ray; pip install 'magi-world[ray]' (into an environment of its own: it pins "
        "gymnasium)"
    ) from error

# Ray gives a node half a minute to start, which a busy machine does not always do.
TRIES = 3


@contextmanager
def cluster() -> Iterator[None]:
    """Ray within the block; it is left running where it ran before.

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
