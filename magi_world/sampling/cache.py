"""The rolling cache of keys and values: fixed size, allocated once.

Shapes: Ly layers, B worlds, P slots, S tokens a chunk, Hkv key/value groups, hd head dim.

    slot:   0 ........ history-1 | history .............. P-1
            clean chunks, newest | chunks of the current forward,
            on the right         | oldest first

A chunk always reads one run of slots, so a key range is a slice and never a mask or a copy.
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
from magi_world.model.dit import SelfAttend
from magi_world.sampling.rows import Indices, ranges_of


@dataclass(frozen=True)
class CacheConfig:
    """Size and place of a cache. ``flight``: most chunks that one forward carries."""

    layers: int
    worlds: int
    history: int
    flight: int
    tokens: int
    kv_groups: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    def shape(self) -> tuple[int, ...]:
        """(Ly, B, P, S, Hkv, hd) of the keys, and of the values."""
        slots = self.history + self.flight
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
        """Make room for one more clean chunk in slot history - 1."""


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
        """A copy that costs nothing until this cache or the copy is written to."""
        twin = object.__new__(KeyValueCache)
        twin.config, twin.filled = self.config, list(self.filled)
        twin.k, twin.v, twin.indices = self.k, self.v, self.indices
        self._shared = twin._shared = True
        return twin

    def own(self) -> None:
        """Make sure that writing here is seen nowhere else."""
        if not self._shared:
            return
        history = self.config.history
        old_k, old_v = self.k, self.v
        self.k, self.v = torch.zeros_like(old_k), torch.zeros_like(old_v)
        self.k[:, :, :history] = old_k[:, :, :history]
        self.v[:, :, :history] = old_v[:, :, :history]
        self._shared = False

    def clean(self) -> tuple[Tensor, Tensor]:
        """Keys and values of the clean slots, each (Ly, B, history, S, Hkv, hd)."""
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
        """Self-attention of one forward, see `CacheReads`."""
        return CacheReads(self, worlds, first_slot, ranges, backend)

    def taken(self, other: Cache) -> KeyValueCache:
        """``other``, shared where it is of this kind and place, otherwise copied to here."""
        if isinstance(other, KeyValueCache) and other.config.device == self.config.device:
            return other.share()
        config = replace(self.config, worlds=other.config.worlds)
        return KeyValueCache.from_clean(config, other.filled, *other.clean())

    def copy_world(self, world: int, other: Cache, row: int) -> None:
        """Make the history of ``world`` that of world ``row`` in ``other``."""
        self.own()
        k, v = other.clean()
        self.k[:, world, : self.config.history] = k[:, row]
        self.v[:, world, : self.config.history] = v[:, row]
        self.filled[world] = other.filled[row]

    def forget(self, worlds: Sequence[int]) -> None:
        """Drop the history of these worlds."""
        for world in worlds:
            self.filled[world] = 0

    def push(self, worlds: Sequence[int]) -> None:
        """Make room for one more clean chunk in slot history - 1; the oldest one goes."""
        self.own()
        rows = self.rows(worlds)
        for slot in range(self.config.history - 1):
            self.k[:, rows, slot] = self.k[:, rows, slot + 1]
            self.v[:, rows, slot] = self.v[:, rows, slot + 1]
        for world in worlds:
            self.filled[world] = min(self.filled[world] + 1, self.config.history)

    def rows(self, worlds: Sequence[int]) -> slice | Tensor:
        """An index for the worlds: a slice (no copy) where they lie side by side."""
        return self.indices(worlds)


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
        self.rows = cache.rows(worlds)
        self.slots = slice(first_slot, first_slot + len(ranges))
        history = cache.config.history
        # Per chunk: {run of slots: batch rows that read it}. Worlds differ only in how much
        # history they have.
        self.reads: list[dict[_Run, list[int]]] = []
        for chunk, length in enumerate(ranges):
            end = first_slot + chunk + 1
            runs: dict[_Run, list[int]] = {}
            for row, world in enumerate(worlds):
                start = max(end - length, history - cache.filled[world])
                runs.setdefault(_Run(start, end), []).append(row)
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
            keys, values = (x[worlds, run.start : run.end].flatten(1, 2) for x in (k, v))
            return attention(q[:, 0], keys, values, self.backend)[:, None]
        out = torch.empty_like(q)
        for chunk, run, rows, worlds in self.calls:
            keys, values = (x[worlds, run.start : run.end].flatten(1, 2) for x in (k, v))
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
                    keys.append(((world + run.start) * tokens, (world + run.end) * tokens))
        return ranges_of(rows, q.device), ranges_of(keys, q.device)


@dataclass(frozen=True)
class _Run:
    """Slots [start, end)."""

    start: int
    end: int
