"""A history as long as one likes: a sink of first chunks, a rolling window, and all between.

Shapes: Ly layers, B worlds, S tokens a chunk, Hkv key/value groups, Hq query heads, hd head dim.

    sink chunks | far, in segments, the oldest one goes | near, as in `kv_cache` | chunks in flight

The newest ``near`` clean chunks lie in an ordinary cache. What leaves it goes to segments
(`magi_world.sampling.segments`), which are attended to one after the other and merged by their
log-sum-exps, never as one buffer: a step costs what is kept, however long the stream has run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from magi_world.config import require
from magi_world.model.attention import Backend, attention_with_lse
from magi_world.sampling.kv_cache import Cache, CacheConfig, CacheReads, KeyValueCache
from magi_world.sampling.segments import Card, Host, MappedFile, Place, Segment, SegmentConfig

NEAR = 4
# A segment is about this large, so that a layer of it is read in one piece.
SEGMENT_BYTES = 64 * 2**20


@dataclass(frozen=True)
class HistoryPlan:
    """How a long history is kept.

    sink: first chunks of a video that stay in sight.    place: where old chunks lie.
    near: newest chunks that lie in one piece on the device that computes.
    """

    sink: int
    place: Place
    near: int = NEAR

    def make(self, config: CacheConfig) -> LongCache:
        """An empty history.

        Raises:
            ValueError: it cannot fit; the message says what would.
        """
        return LongCache(config, self)


def make_place(where: str | Path | None) -> Place:
    """``history_place=``: None or "card", "host", or a folder for a mapped file.

    Raises:
        ValueError: there is no such folder.
    """
    if where is None or where == "card":
        return Card()
    if where == "host":
        return Host()
    return MappedFile(Path(where).expanduser())


@dataclass(frozen=True)
class Piece:
    """Chunks first .. first + count - 1 of a segment."""

    segment: Segment
    first: int
    count: int


class Past:
    """The chunks of one world that have left the near cache."""

    def __init__(self, plan: HistoryPlan, config: SegmentConfig, room: int) -> None:
        """room: chunks that are kept besides the sink."""
        self.plan, self.config, self.room = plan, config, room
        self.sink: list[Piece] = []
        self.rolling: deque[Piece] = deque()

    def share(self) -> Past:
        """A copy; the chunks themselves are shared."""
        twin = Past(self.plan, self.config, self.room)
        twin.sink, twin.rolling = list(self.sink), deque(self.rolling)
        return twin

    @property
    def sinks(self) -> int:
        """Chunks of the sink that are here."""
        return sum(piece.count for piece in self.sink)

    @property
    def count(self) -> int:
        """Other chunks that are here."""
        return sum(piece.count for piece in self.rolling)

    def append(self, k: Tensor, v: Tensor) -> None:
        """The chunk k, v (Ly, S, Hkv, hd) has become old; one too old goes."""
        if self.sinks < self.plan.sink:
            self._add(self.sink, k, v)
            return
        if not self.room:
            return
        self._add(self.rolling, k, v)
        if self.count > self.room:
            oldest = self.rolling[0]
            if oldest.count == 1:
                self.rolling.popleft()
            else:
                self.rolling[0] = Piece(oldest.segment, oldest.first + 1, oldest.count - 1)

    def newest(self, count: int) -> list[Piece]:
        """The pieces of the last ``count`` rolling chunks, oldest first."""
        found: list[Piece] = []
        for piece in reversed(self.rolling):
            if count <= 0:
                break
            taken = min(piece.count, count)
            found.append(Piece(piece.segment, piece.first + piece.count - taken, taken))
            count -= taken
        return found[::-1]

    def _add(self, pieces: list[Piece] | deque[Piece], k: Tensor, v: Tensor) -> None:
        if pieces:
            last = pieces[-1]
            end = last.first + last.count
            # Free to go on only for the first who does; see `segments`.
            if end == last.segment.written < self.config.chunks:
                last.segment.append(k, v)
                pieces[-1] = replace(last, count=last.count + 1)
                return
        segment = self.plan.place.new(self.config)
        pieces.append(Piece(segment, segment.append(k, v), 1))


class LongCache:
    """See the module; to a stream it is a `magi_world.sampling.kv_cache.Cache`."""

    def __init__(self, config: CacheConfig, plan: HistoryPlan) -> None:
        """Raises:
        ValueError: it cannot fit; the message says what would.
        """
        self.config, self.plan = config, plan
        rolling = config.history - plan.sink
        require(
            rolling >= 1,
            f"sink is {plan.sink}; it must be less than the history of {config.history} chunks",
        )
        near = min(plan.near, rolling)
        room = rolling - near
        self.segment_config = _segment_config(config, room + plan.sink)
        check_room(config, plan, self.segment_config)
        self.near = KeyValueCache(replace(config, history=near))
        self.pasts = [Past(plan, self.segment_config, room) for _ in range(config.worlds)]

    @property
    def filled(self) -> list[int]:
        """Clean chunks of each world that are here."""
        pairs = zip(self.near.filled, self.pasts, strict=True)
        return [near + past.sinks + past.count for near, past in pairs]

    def reads(
        self, worlds: Sequence[int], first_slot: int, ranges: Sequence[int], backend: Backend
    ) -> LongReads:
        return LongReads(self, worlds, first_slot, ranges, backend)

    def share(self) -> LongCache:
        twin = object.__new__(LongCache)
        twin.config, twin.plan, twin.segment_config = self.config, self.plan, self.segment_config
        twin.near = self.near.share()
        twin.pasts = [past.share() for past in self.pasts]
        return twin

    def own(self) -> None:
        self.near.own()

    def clean(self) -> tuple[Tensor, Tensor]:
        """All that is here in one piece, each (Ly, B, history, S, Hkv, hd), newest on the right.

        This needs as much memory as the whole history; it is for saving.
        """
        config = self.config
        shape = list(config.shape())
        shape[2] = config.history
        k = torch.zeros(shape, dtype=config.dtype)
        v = torch.zeros_like(k)
        near_k, near_v = self.near.clean()
        for world, past in enumerate(self.pasts):
            end = config.history
            count = self.near.filled[world]
            for whole, part in ((k, near_k), (v, near_v)):
                whole[:, world, end - count : end] = part[:, world, part.shape[2] - count :]
            end -= count
            for piece in reversed([*past.sink, *past.rolling]):
                here = slice(end - piece.count, end)
                for layer in range(config.layers):
                    keys, values = piece.segment.read(layer, piece.first, piece.count)
                    k[layer, world, here], v[layer, world, here] = keys, values
                    piece.segment.done(layer)
                end -= piece.count
        return k, v

    def taken(self, other: Cache) -> LongCache:
        """``other``, shared where it is kept in the same place, otherwise copied to here."""
        if isinstance(other, LongCache) and other.plan is self.plan:
            return other.share()
        cache = LongCache(replace(self.config, worlds=other.config.worlds), self.plan)
        k, v = other.clean()
        for world, count in enumerate(other.filled):
            cache._fill(world, k[:, world], v[:, world], count)
        return cache

    def copy_world(self, world: int, other: Cache, row: int) -> None:
        if isinstance(other, LongCache) and other.plan is self.plan:
            self.near.copy_world(world, other.near, row)
            self.pasts[world] = other.pasts[row].share()
            return
        k, v = other.clean()
        self._fill(world, k[:, row], v[:, row], other.filled[row])

    def forget(self, worlds: Sequence[int]) -> None:
        self.near.forget(worlds)
        for world in worlds:
            past = self.pasts[world]
            self.pasts[world] = Past(past.plan, past.config, past.room)

    def push(self, worlds: Sequence[int]) -> None:
        """Make room for one more clean chunk; what leaves the near cache goes to the segments."""
        for world in worlds:
            if self.near.filled[world] == self.near.config.history:
                self.pasts[world].append(self.near.k[:, world, 0], self.near.v[:, world, 0])
        self.near.push(worlds)

    def _fill(self, world: int, k: Tensor, v: Tensor, count: int) -> None:
        """The last ``count`` of k, v (Ly, history, S, Hkv, hd) are the history of ``world``."""
        self.near.own()
        self.forget([world])
        slots, near = k.shape[1], min(count, self.near.config.history)
        for slot in range(slots - count, slots - near):
            self.pasts[world].append(k[:, slot], v[:, slot])
        end = self.near.config.history
        self.near.k[:, world, end - near : end] = k[:, slots - near :]
        self.near.v[:, world, end - near : end] = v[:, slots - near :]
        self.near.filled[world] = near


class LongReads:
    """Self-attention of one forward over the near cache and the segments."""

    def __init__(
        self,
        cache: LongCache,
        worlds: Sequence[int],
        first_slot: int,
        ranges: Sequence[int],
        backend: Backend,
    ) -> None:
        """As `CacheReads`; of a range above the sink, the sink is a part."""
        self.cache, self.worlds, self.backend = cache, list(worlds), backend
        sink, history, near = cache.plan.sink, cache.config.history, cache.near.config.history
        rolling = [length - sink if length > sink else length for length in ranges]
        self.near = CacheReads(cache.near, worlds, first_slot - history + near, rolling, backend)
        # Per chunk and batch row: the pieces of its past, oldest first.
        self.pieces: list[list[list[Piece]]] = []
        for chunk, (length, roll) in enumerate(zip(ranges, rolling, strict=True)):
            # Clean chunks that are wanted beyond the near cache's.
            beyond = history - (first_slot + chunk + 1 - roll) - near
            self.pieces.append(
                [
                    [
                        *(cache.pasts[world].sink if length > sink else []),
                        *cache.pasts[world].newest(beyond),
                    ]
                    for world in worlds
                ]
            )

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        self.near.write(layer, k, v)

    def read(self, layer: int, q: Tensor) -> Tensor:
        if not any(pieces for rows in self.pieces for pieces in rows):
            return self.near.read(layer, q)
        out = torch.empty_like(q)
        for row in range(len(self.worlds)):
            self._read_row(layer, row, q[row], out[row])
        return out

    def _read_row(self, layer: int, row: int, q: Tensor, out: Tensor) -> None:
        """The chunks q (N, S, Hq, hd) of one world; a segment is read once for all of them."""
        merged = [
            Merged(
                *attention_with_lse(q[chunk][None], *self._near(layer, chunk, row), self.backend)
            )
            for chunk in range(len(q))
        ]
        for piece, readers in self._schedule(layer, row):
            keys, values = piece.segment.read(layer, piece.first, piece.count)
            for chunk, first, count in readers:
                part = slice(first - piece.first, first - piece.first + count)
                k, v = (x[part].flatten(0, 1)[None] for x in (keys, values))
                merged[chunk].add(*attention_with_lse(q[chunk][None], k, v, self.backend))
            piece.segment.done(layer)
        for chunk, total in enumerate(merged):
            out[chunk] = total.out[0].to(out.dtype)

    def _near(self, layer: int, chunk: int, row: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the near cache for a chunk, each (1, Sk, Hkv, hd)."""
        (run,) = [run for run, rows in self.near.reads[chunk].items() if row in rows]
        world, near = self.worlds[row], self.cache.near
        k, v = (x[layer, world, run.start : run.stop].flatten(0, 1)[None] for x in (near.k, near.v))
        return k, v

    def _schedule(self, layer: int, row: int) -> Iterator[tuple[Piece, list[tuple[int, int, int]]]]:
        """Pieces that hold what any chunk reads, each with (chunk, first, count) of its readers.

        The next one is announced while one is used: of this layer, then of the next.
        """
        readers: dict[int, list[tuple[int, int, int]]] = {}
        widest: dict[int, Piece] = {}
        for chunk, rows in enumerate(self.pieces):
            for piece in rows[row]:
                key = id(piece.segment)
                readers.setdefault(key, []).append((chunk, piece.first, piece.count))
                known = widest.get(key, piece)
                first = min(known.first, piece.first)
                end = max(known.first + known.count, piece.first + piece.count)
                widest[key] = Piece(piece.segment, first, end - first)
        order = list(widest.values())
        last_layer = self.cache.config.layers - 1
        for index, piece in enumerate(order):
            if index + 1 < len(order):
                order[index + 1].segment.ahead(layer)
            elif layer < last_layer:
                order[0].segment.ahead(layer + 1)
            yield piece, readers[id(piece.segment)]


class Merged:
    """Attention over parts of the keys, put together. out (B, Sq, Hq, hd), lse (B, Sq, Hq)."""

    def __init__(self, out: Tensor, lse: Tensor) -> None:
        self.out, self.lse = out.float(), lse

    def add(self, out: Tensor, lse: Tensor) -> None:
        """Over further keys as well."""
        total = torch.logaddexp(self.lse, lse)
        old, new = (self.lse - total).exp()[..., None], (lse - total).exp()[..., None]
        self.out = self.out * old + out.float() * new
        self.lse = total


def check_room(config: CacheConfig, plan: HistoryPlan, segment: SegmentConfig) -> None:
    """Refuse a history that its place cannot hold, before anything is allocated.

    Raises:
        ValueError: with the length that would fit.
    """
    old = config.history - min(plan.near, config.history - plan.sink)
    needed, free = old * segment.chunk_bytes * config.worlds, plan.place.free_bytes(config.device)
    if needed <= free:
        return
    fits = free // (segment.chunk_bytes * config.worlds) + config.history - old
    raise ValueError(
        f"a history of {config.history} chunks ({config.history * config.tokens:,} tokens) of "
        f"{config.worlds} worlds needs {needed / 2**30:,.1f} GiB; {plan.place.name} has "
        f"{free / 2**30:,.1f} GiB, where history={fits} fits; or choose another history_place: "
        "'host', or a folder on a larger disk"
    )


def _segment_config(config: CacheConfig, old: int) -> SegmentConfig:
    """Segments of a convenient size for ``old`` chunks."""
    one = SegmentConfig(
        config.layers, 1, config.tokens, config.kv_groups, config.head_dim, config.dtype,
        config.device,
    )  # fmt: skip
    return replace(one, chunks=max(1, min(max(old, 1), SEGMENT_BYTES // one.chunk_bytes)))
