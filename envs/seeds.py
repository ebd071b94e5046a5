"""The random generators of many worlds, one each, so that no world's episodes shift another's."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.utils.seeding import np_random as seeded

from magi_world.envs.config import is_int
from magi_world.envs.options import MAX_SEED
from magi_world.envs.state import rng_from, rng_state


class Generators:
    """One generator per world, as each `gymnasium.Env` has its own.

    seeds: of each generator; -1 where it came from a snapshot or is not made yet.
    """

    def __init__(self, count: int) -> None:
        self._rngs: list[np.random.Generator | None] = [None] * count
        self.seeds = [-1] * count

    def __len__(self) -> int:
        return len(self._rngs)

    def __getitem__(self, row: int) -> np.random.Generator:
        """The generator of a world; made now, from fresh entropy, if it was never seeded."""
        rng = self._rngs[row]
        if rng is None:
            rng, self.seeds[row] = seeded()
            self._rngs[row] = rng
        return rng

    def seed(self, row: int, seed: int | None) -> None:
        """Begin a generator anew; None leaves it as it is."""
        if seed is not None:
            self._rngs[row], self.seeds[row] = seeded(seed)

    def copy(self) -> Generators:
        """The same generators in the same states, which go on by themselves."""
        twin = Generators(len(self))
        twin._rngs, twin.seeds = copy.deepcopy(self._rngs), list(self.seeds)
        return twin

    def draw(self, row: int, seed: int | None, fixed: int | None) -> int:
        """The seed of the next episode: the given one, else fixed + row, else a new one."""
        if seed is not None:
            return seed
        return int(self[row].integers(MAX_SEED)) if fixed is None else fixed + row

    def states(self) -> list[dict[str, Any]]:
        """State of each, as JSON can hold it."""
        return [rng_state(self[row]) for row in range(len(self))]

    def restore(self, states: Sequence[dict[str, Any]]) -> None:
        """Put them back to ``states``, one per world."""
        self._rngs, self.seeds = [rng_from(s) for s in states], [-1] * len(self)


def seeds_per_world(seed: object, count: int) -> list[int | None]:
    """One number for all gives seed, seed + 1, ...; None gives None to each.

    Raises:
        ValueError: the wrong number of seeds, or one that is none.
    """
    several = isinstance(seed, Sequence | np.ndarray) and not isinstance(seed, str)
    values: list[Any] = list(seed) if several else [seed] * count  # type: ignore[call-overload]
    if len(values) != count:
        raise ValueError(f"seed has {len(values)} entries, but there are {count} worlds")
    for value in values:
        if value is not None and not (is_int(value) and value >= 0):
            raise ValueError(
                f"seed is {value!r}; it must be a whole number from 0, one per world, or None"
            )
    step = 0 if several else 1
    return [None if v is None else int(v) + i * step for i, v in enumerate(values)]
