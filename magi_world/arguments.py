"""Arguments that may be given once for all worlds or once for each."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np


def per_world(name: str, value: object, count: int, kind: type) -> list[Any]:
    """``value`` once per world, each of ``kind`` or None.

    Raises:
        ValueError: the wrong number of entries, or one of the wrong kind.
    """
    values = list(value) if is_list(value) else [value] * count  # type: ignore[call-overload]
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} entries, but there are {count} worlds")
    for one in values:
        if one is not None and not _is_a(one, kind):
            raise ValueError(f"{name} is {one!r}; it must be {kind.__name__} (or one per world)")
    return values


def seeds_per_world(seed: object, count: int) -> list[int]:
    """One number for all gives seed, seed + 1, ...; None gives fresh ones."""
    values = per_world("seed", seed, count, int)
    if not is_list(seed) and seed is not None:
        return [int(values[0]) + i for i in range(count)]
    return [secrets.randbits(31) if one is None else int(one) for one in values]


def world_rows(worlds: Sequence[int] | None, count: int) -> list[int]:
    """Indices of the chosen worlds; None chooses all.

    Raises:
        ValueError: none, one twice, or one that does not exist.
    """
    rows = list(range(count)) if worlds is None else [int(w) for w in worlds]
    known = all(0 <= row < count for row in rows)
    if not rows or len(set(rows)) != len(rows) or not known:
        raise ValueError(f"worlds is {rows}; it must name some of 0 .. {count - 1}, each once")
    return rows


def at_least_one(name: str, value: int) -> int:
    """``value``, or ValueError where it is below 1."""
    if value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 1")
    return value


def is_list(value: object) -> bool:
    """Whether ``value`` is given once per world."""
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


def _is_a(value: object, kind: type) -> bool:
    if kind is int:
        return isinstance(value, int | np.integer) and not isinstance(value, bool)
    return isinstance(value, kind)
