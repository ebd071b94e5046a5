"""Rows of a chunk: taken out, put back, joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from magi_world.world.chunk import Chunk

_PER_WORLD = ("index", "prompts", "lands", "skip")


def rows_of(chunk: Chunk, rows: Sequence[int]) -> Chunk:
    """The chunk of some of its worlds, in the given order."""
    return _each(chunk, lambda x: x[list(rows)], lambda t: tuple(t[i] for i in rows))


def joined(chunks: Sequence[Chunk], order: Sequence[int]) -> Chunk:
    """One chunk of all rows; the k-th of them becomes row ``order[k]``."""
    if len(chunks) == 1 and list(order) == list(range(len(order))):
        return chunks[0]
    first = chunks[0]
    whole = replace(
        first,
        latents=torch.cat([c.latents for c in chunks]),
        pixels=_cat([c.pixels for c in chunks]),
        **{name: sum((getattr(c, name) for c in chunks), ()) for name in _PER_WORLD},
    )
    places = sorted(range(len(order)), key=lambda k: order[k])
    return rows_of(whole, places)


def with_rows(chunk: Chunk, rows: Sequence[int], part: Chunk) -> Chunk:
    """``chunk`` with ``rows`` replaced by those of ``part``; pixels only where both have them."""
    latents = chunk.latents.clone()
    latents[list(rows)] = part.latents
    pixels = None
    if chunk.pixels is not None and part.pixels is not None:
        pixels = chunk.pixels.clone()
        pixels[list(rows)] = part.pixels
    changed: dict[str, Any] = {}
    for name in _PER_WORLD:
        values = list(getattr(chunk, name))
        for row, value in zip(rows, getattr(part, name), strict=True):
            values[row] = value
        changed[name] = tuple(values)
    return replace(chunk, latents=latents, pixels=pixels, **changed)


def repeated(chunk: Chunk, n: int) -> Chunk:
    """Every row ``n`` times, side by side."""
    return rows_of(chunk, [row for row in range(len(chunk.index)) for _ in range(n)])


def _each(
    chunk: Chunk,
    tensor: Callable[[Tensor], Tensor],
    values: Callable[[tuple[Any, ...]], tuple[Any, ...]],
) -> Chunk:
    return replace(
        chunk,
        latents=tensor(chunk.latents),
        pixels=None if chunk.pixels is None else tensor(chunk.pixels),
        **{name: values(getattr(chunk, name)) for name in _PER_WORLD},
    )


def _cat(parts: Sequence[Tensor | None]) -> Tensor | None:
    known = [p for p in parts if p is not None]
    return torch.cat(known) if len(known) == len(parts) else None
