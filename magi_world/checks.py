"""Arguments of worlds: prompts, and what may be given once for all worlds or once for each."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np

from magi_world.config import require

MAX_SEED = 2**63
# T5 reads 800 tokens, about 3,500 characters of English, and would ignore the rest unsaid. Up to
# here a prompt is cut as the reference cuts it; beyond, its end would certainly be lost.
MAX_PROMPT_CHARACTERS = 4096


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
    """One number for all gives seed, seed + 1, ...; None gives fresh ones.

    Raises:
        ValueError: as `per_world`, or a seed that a session file could not hold.
    """
    values = per_world("seed", seed, count, int)
    for one in values:
        if one is not None and not 0 <= one < MAX_SEED:
            shown = "2**63 or more" if one > 0 else str(one)
            raise ValueError(f"seed is {shown}; it must be a whole number from 0 to 2**63 - 1")
    if not is_list(seed) and seed is not None:
        return [int(values[0]) + i for i in range(count)]
    return [secrets.randbits(31) if one is None else int(one) for one in values]


def world_rows(worlds: Sequence[int] | None, count: int) -> list[int]:
    """Indices of the chosen worlds; None chooses all.

    Raises:
        ValueError: none, one twice, one that does not exist, or no whole numbers at all.
    """
    if worlds is None:
        return list(range(count))
    if not (is_list(worlds) or isinstance(worlds, range)) or not all(_is_a(w, int) for w in worlds):
        # A mask of bools would be read as worlds 0 and 1.
        raise ValueError(
            f"worlds is {worlds!r:.80}; it must be a list of whole numbers, each 0 .. {count - 1}"
        )
    rows = [int(w) for w in worlds]
    known = all(0 <= row < count for row in rows)
    if not rows or len(set(rows)) != len(rows) or not known:
        raise ValueError(f"worlds is {rows}; it must name some of 0 .. {count - 1}, each once")
    return rows


def check_prompt(prompt: object) -> str:
    """Return ``prompt`` if it can be encoded.

    Raises:
        ValueError: not a str, empty, longer than ``MAX_PROMPT_CHARACTERS``, or not valid Unicode.
    """
    if not isinstance(prompt, str):
        raise ValueError(
            f"prompt is {prompt!r:.80}, a {type(prompt).__name__}; it must be a str such as "
            "'turn left'"
        )
    require(bool(prompt.strip()), f"prompt is {prompt!r:.80}; it must say something")
    require(
        len(prompt) <= MAX_PROMPT_CHARACTERS,
        f"prompt has {len(prompt):,} characters ({prompt!r:.40}...); it must have at most "
        f"{MAX_PROMPT_CHARACTERS:,}, because the encoder would not read the rest",
    )
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"prompt is {prompt!a:.80}; it must be valid Unicode, without lone surrogates"
        ) from error
    return prompt


def at_least_one(name: str, value: int) -> int:
    """``value``, or ValueError where it is no whole number from 1."""
    if not _is_a(value, int) or value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 1")
    return value


def is_list(value: object) -> bool:
    """Whether ``value`` is given once per world."""
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


def _is_a(value: object, kind: type) -> bool:
    if kind is int:
        return isinstance(value, int | np.integer) and not isinstance(value, bool)
    return isinstance(value, kind)
