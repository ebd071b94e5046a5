"""Keys and values: the rolling cache of the past, fixed in size, and those of the texts.

Shapes: Ly layers, B worlds, N chunks of a forward, P slots, S tokens a chunk, L caption rows,
Hq query heads, Hkv key/value groups, hd head dim.

    slot:   0 ........ history-1 | history .............. P-1
            clean chunks, newest | chunks of the current forward,
            on the right         | oldest first

A chunk always reads one run of slots, so a key range is a slice and never a mask or a copy. An
index costs a GPU nothing: a Python list would be copied to it, and waited for, at every use.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from magi_world.model.attention import Backend, attend_ranges, attention
from magi_world.model.dit import Memo, SelfAttend

INDICES_KEPT = 256


@dataclass(frozen=True)
class CacheConfig:
    """Size and place of a cache. ``window``: most chunks of a forward."""

    layers: int
    worlds: int
    history: int
    window: int
    tokens: int
    kv_groups: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    def shape(self) -> tuple[int, ...]:
        """(Ly, B, P, S, Hkv, hd) of the keys, and of the values."""
        slots = self.history + self.window
        return (self.layers, self.worlds, slots, self.tokens, self.kv_groups, self.head_dim)

    @property
    def nbytes(self) -> int:
        """Memory of keys and values together."""
        return 2 * math.prod(self.shape()) * self.dtype.itemsize

    def check_memory(self) -> None:
        """Raise ValueError where it cannot fit; the system would end the process instead."""
        try:
            there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError, OSError):  # not every system tells
            return
        if self.device.type == "cpu" and self.nbytes > there:
            raise ValueError(
                f"num_worlds is {self.worlds}; with a history of {self.history} chunks of "
                f"{self.tokens} tokens they need {self.nbytes / 2**30:,.0f} GB of memory, and this "
                f"machine has {there / 2**30:,.0f} GB"
            )


class Cache(Protocol):
    """What a stream asks of its history: here, over several processes, or on other memory."""

    @property
    def config(self) -> CacheConfig:
        """Its size."""

    @property
    def filled(self) -> list[int]:
        """Clean chunks that each world has of late, at most ``config.history``."""

    def reads(
        self, worlds: Sequence[int], first_slot: int, ranges: Sequence[int], backend: Backend
    ) -> SelfAttend:
        """Self-attention of one forward, see `CacheReads`."""

    def share(self) -> Self:
        """A copy that costs nothing until one side writes."""

    def own(self) -> None:
        """Make sure that writing here is seen nowhere else."""

    def clean(self) -> tuple[Tensor, Tensor]:
        """Keys and values of the clean slots, each (Ly, B, history, S, Hkv, hd)."""

    def taken(self, other: Cache) -> Cache:
        """A cache like this one that goes on from ``other``, which stays as it is."""

    def copy_world(self, world: int, other: Cache, row: int) -> None:
        """Make the history of ``world`` that of world ``row`` in ``other``."""

    def forget(self, worlds: Sequence[int]) -> None:
        """Drop the history of these worlds."""

    def push(self, worlds: Sequence[int]) -> None:
        """Make room for one more clean chunk in slot history - 1; the oldest one goes."""


MakeCache = Callable[[CacheConfig], Cache]


class KeyValueCache:
    """Keys and values of the last ``history`` clean chunks of every world.

    Copies made by `share` use the same memory until one side writes.
    """

    def __init__(self, config: CacheConfig) -> None:
        config.check_memory()
        self.config = config
        self.filled = [0] * config.worlds
        self.k = torch.zeros(config.shape(), dtype=config.dtype, device=config.device)
        self.v = torch.zeros_like(self.k)
        self.indices = Indices(config.device)
        self._shared = False

    def share(self) -> KeyValueCache:
        twin = object.__new__(KeyValueCache)
        twin.config, twin.filled = self.config, list(self.filled)
        twin.k, twin.v, twin.indices = self.k, self.v, self.indices
        self._shared = twin._shared = True
        return twin

    def own(self) -> None:
        if not self._shared:
            return
        history = self.config.history
        old_k, old_v = self.k, self.v
        self.k, self.v = torch.zeros_like(old_k), torch.zeros_like(old_v)
        self.k[:, :, :history] = old_k[:, :, :history]
        self.v[:, :, :history] = old_v[:, :, :history]
        self._shared = False

    def clean(self) -> tuple[Tensor, Tensor]:
        history = self.config.history
        return self.k[:, :, :history], self.v[:, :, :history]

    @staticmethod
    def from_clean(config: CacheConfig, filled: list[int], k: Tensor, v: Tensor) -> KeyValueCache:
        """The cache whose clean slots are k, v (Ly, B, history, S, Hkv, hd)."""
        cache = KeyValueCache(config)
        cache.filled = list(filled)
        cache.k[:, :, : config.history], cache.v[:, :, : config.history] = k, v
        return cache

    def reads(
        self, worlds: Sequence[int], first_slot: int, ranges: Sequence[int], backend: Backend
    ) -> CacheReads:
        return CacheReads(self, worlds, first_slot, ranges, backend)

    def taken(self, other: Cache) -> KeyValueCache:
        """``other``, shared where it is of this kind and place, otherwise copied to here."""
        if isinstance(other, KeyValueCache) and other.config.device == self.config.device:
            return other.share()
        config = replace(self.config, worlds=other.config.worlds)
        return KeyValueCache.from_clean(config, other.filled, *other.clean())

    def copy_world(self, world: int, other: Cache, row: int) -> None:
        self.own()
        k, v = other.clean()
        self.k[:, world, : self.config.history] = k[:, row]
        self.v[:, world, : self.config.history] = v[:, row]
        self.filled[world] = other.filled[row]

    def forget(self, worlds: Sequence[int]) -> None:
        for world in worlds:
            self.filled[world] = 0

    def push(self, worlds: Sequence[int]) -> None:
        self.own()
        rows = self.indices(worlds)
        for slot in range(self.config.history - 1):
            self.k[:, rows, slot] = self.k[:, rows, slot + 1]
            self.v[:, rows, slot] = self.v[:, rows, slot + 1]
        for world in worlds:
            self.filled[world] = min(self.filled[world] + 1, self.config.history)


class CacheReads:
    """Self-attention of one forward over consecutive slots of the cache."""

    def __init__(
        self,
        cache: KeyValueCache,
        worlds: Sequence[int],
        first_slot: int,
        ranges: Sequence[int],
        backend: Backend,
    ) -> None:
        """The chunks of this forward go to slots first_slot, first_slot + 1, ...

        Args:
            worlds: which worlds the batch rows are.
            ranges: per chunk, how many slots it sees, ending with its own. Slots that a world
                has not filled yet are left out for that world.
        """
        cache.own()
        self.cache, self.backend = cache, backend
        self.rows = cache.indices(worlds)
        self.slots = slice(first_slot, first_slot + len(ranges))
        history = cache.config.history
        # Per chunk: {run of slots: batch rows that read it}. Worlds differ only in how much
        # history they have.
        self.reads: list[dict[range, list[int]]] = []
        for chunk, length in enumerate(ranges):
            end = first_slot + chunk + 1
            runs: dict[range, list[int]] = {}
            for row, world in enumerate(worlds):
                start = max(end - length, history - cache.filled[world])
                runs.setdefault(range(start, end), []).append(row)
            self.reads.append(runs)
        self.worlds = list(worlds)
        self.ranges: tuple[Tensor, Tensor] | None = None
        # Per call of the kernel: chunk, run, batch rows, and the worlds that these are.
        self.calls = [
            (chunk, run, cache.indices(rows), cache.indices([self.worlds[r] for r in rows]))
            for chunk, runs in enumerate(self.reads)
            for run, rows in runs.items()
        ]

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Store k, v (B, N, S, Hkv, hd)."""
        self.cache.k[layer, self.rows, self.slots] = k
        self.cache.v[layer, self.rows, self.slots] = v

    def read(self, layer: int, q: Tensor) -> Tensor:
        """q (B, N, S, Hq, hd) -> the same shape."""
        k, v = self.cache.k[layer], self.cache.v[layer]
        if self.backend == "magi":
            if self.ranges is None:
                self.ranges = self._make_ranges(q)
            keys, values = k.flatten(0, 2), v.flatten(0, 2)
            return attend_ranges(q.flatten(0, 2), keys, values, *self.ranges).view(q.shape)
        if q.shape[1] == len(self.calls) == 1:
            ((_, run, _, worlds),) = self.calls
            keys, values = (x[worlds, run.start : run.stop].flatten(1, 2) for x in (k, v))
            return attention(q[:, 0], keys, values, self.backend)[:, None]
        out = torch.empty_like(q)
        for chunk, run, rows, worlds in self.calls:
            keys, values = (x[worlds, run.start : run.stop].flatten(1, 2) for x in (k, v))
            out[rows, chunk] = attention(q[rows, chunk], keys, values, self.backend)
        return out

    def _make_ranges(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Which rows read which slots: all worlds, whatever their history, in one call."""
        chunks, tokens = q.shape[1:3]
        slots = self.cache.k.shape[2]
        rows, keys = [], []
        for chunk, runs in enumerate(self.reads):
            for run, batch_rows in runs.items():
                for row in batch_rows:
                    place, world = row * chunks + chunk, self.worlds[row] * slots
                    rows.append((place * tokens, (place + 1) * tokens))
                    keys.append(((world + run.start) * tokens, (world + run.stop) * tokens))
        return ranges_of(rows, q.device), ranges_of(keys, q.device)


@dataclass(frozen=True, eq=False)
class TextKV:
    """One caption as the transformer reads it.

    features: (L, caption_channels), or None for the null caption.
    layers: per layer k and v, each (1, L, Hkv, hd).
    """

    features: Tensor | None
    layers: tuple[tuple[Tensor, Tensor], ...]


class TextReads:
    """Cross-attention of one forward. Rows that carry the same caption are read in one call."""

    def __init__(
        self,
        texts: Sequence[Sequence[TextKV]],
        backend: Backend,
        indices: Indices | None = None,
    ) -> None:
        """``texts[b][n]`` is what chunk n of batch row b reads; ``indices`` may be shared."""
        self.backend, self.shape = backend, (len(texts), len(texts[0]))
        self.texts = texts
        self.features = [text.features for chunks in texts for text in chunks]
        self.groups: dict[TextKV, list[int]] = {}
        for row, text in enumerate(text for chunks in texts for text in chunks):
            self.groups.setdefault(text, []).append(row)
        self.indices = indices
        self.ranges: tuple[Tensor, Tensor] | None = None

    def __call__(self, layer: int, q: Tensor) -> Tensor:
        """q (B, N, S, Hq, hd) -> the same shape."""
        if self.backend == "magi":
            return self._read_ranges(layer, q)
        if len(self.groups) == 1:
            (text,) = self.groups
            return self._read(text, layer, q.flatten(0, 2)).view(q.shape)
        if self.indices is None:
            self.indices = Indices(q.device)
        rows, out = q.flatten(0, 1), torch.empty_like(q)
        for text, places in self.groups.items():
            index = self.indices(places)
            picked = rows[index]
            out.view(rows.shape)[index] = self._read(text, layer, picked.flatten(0, 1)).view(
                picked.shape
            )
        return out

    def _read_ranges(self, layer: int, q: Tensor) -> Tensor:
        """All captions in one call: their keys one behind the other, each chunk reads its own."""
        k, v = (torch.cat([text.layers[layer][part][0] for text in self.groups]) for part in (0, 1))
        if self.ranges is None:
            self.ranges = self._make_ranges(q)
        return attend_ranges(q.flatten(0, 2), k, v, *self.ranges).view(q.shape)

    def _make_ranges(self, q: Tensor) -> tuple[Tensor, Tensor]:
        tokens, start, pairs = q.shape[2], 0, []
        for text, places in self.groups.items():
            end = start + text.layers[0][0].shape[1]
            pairs += [(place, (start, end)) for place in places]
            start = end
        rows = [(place * tokens, (place + 1) * tokens) for place, _ in pairs]
        return ranges_of(rows, q.device), ranges_of([keys for _, keys in pairs], q.device)

    def summary(self, null: Tensor) -> Tensor:
        """First feature row of each chunk's caption (B, N, Cc); ``null`` where it has none."""
        rows = [null if f is None else f[0].to(null.dtype) for f in self.features]
        return torch.stack(rows).view(*self.shape, -1)

    def _read(self, text: TextKV, layer: int, q: Tensor) -> Tensor:
        k, v = text.layers[layer]
        return attention(q[None], k, v, self.backend, text=True)


def upload(x: Tensor, device: torch.device) -> Tensor:
    """``x`` from the host to a device, without waiting for it."""
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    # Out of ordinary memory the copy would be waited for.
    return x.pin_memory().to(device, non_blocking=True)


def ranges_of(pairs: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """(R, 2) int32 on the device, half-open ranges as `attend_ranges` takes them."""
    return upload(torch.tensor(pairs, dtype=torch.int32), device)


def as_slice(rows: Sequence[int]) -> slice | None:
    """The slice that selects these rows, if there is one."""
    first = rows[0] if len(rows) else 0
    run = slice(first, first + len(rows))
    return run if list(rows) == list(range(run.start, run.stop)) else None


class Indices:
    """Lists of rows as indices; the tensors among them are uploaded once."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._kept = Memo(INDICES_KEPT)

    def __call__(self, rows: Sequence[int]) -> slice | Tensor:
        """What to index with, to get these rows in this order."""
        run = as_slice(rows)
        if run is not None:
            return run
        key = tuple(rows)
        return self._kept.get(key, lambda: upload(torch.tensor(key), self.device))


def taken(x: Tensor, places: Sequence[int], axis: int) -> Tensor:
    """Some places of an axis, in this order: views of the runs among them, joined."""
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][1]:
            runs[-1][1] = place + 1
        else:
            runs.append([place, place + 1])
    views = [x.narrow(axis, start, end - start) for start, end in runs]
    return views[0] if len(views) == 1 else torch.cat(views, dim=axis)
