"""Rank 0: the world lives here; its transformer, history and tiles are worked on by all ranks."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from magi_world.config import DiTConfig, require
from magi_world.model.attention import Backend
from magi_world.model.dit import Pass
from magi_world.model.vae import VAE
from magi_world.parallel.channel import Channel
from magi_world.parallel.dit import RankDiT, receive, send
from magi_world.parallel.split import Part, part_of
from magi_world.sampling.kv_cache import (
    Cache,
    CacheConfig,
    KeyValueCache,
    MakeCache,
    TextKV,
    TextReads,
)


class LeadDiT(RankDiT):
    """The transformer as the stream sees it: each forward is announced, then run by all ranks."""

    def __init__(self, config: DiTConfig, channel: Channel) -> None:
        """Raises:
        ValueError: the transformer cannot be split so.
        """
        super().__init__(config, channel.ranks)
        self.channel = channel
        self.parts = [part_of(self.part.split, config, r) for r in range(self.part.split.size)]
        self._captions: weakref.WeakKeyDictionary[TextKV, int] = weakref.WeakKeyDictionary()

    def forward(self, x: Tensor, given: Pass) -> Tensor:
        """See `DiT.forward`.

        Raises:
            RankLostError: a follower has gone.
        """
        own, text, conditional, interval = given.own, given.text, given.conditional, given.interval
        assert isinstance(own, LeadReads) and isinstance(text, TextReads)  # noqa: PT018
        assert not isinstance(conditional, Tensor) and not isinstance(interval, Tensor)  # noqa: PT018
        captions = [[self._number(caption) for caption in row] for row in text.texts]
        facts = [captions, text.backend, conditional, interval, given.keys_only]
        with self.channel.call(["forward", own.describe(), *facts], [x, given.t, given.frames]):
            return super().forward(x, replace(given, own=own.local))

    def keep(self, make_local: MakeCache) -> MakeCache:
        """What makes histories that all ranks keep together, each its part with ``make_local``."""
        return lambda config: LeadCache(config, self.channel, self.parts, make_local)

    def _number(self, caption: TextKV) -> int:
        if caption not in self._captions:
            number = self._captions[caption] = self.channel.number()
            features = [] if caption.features is None else [caption.features]
            self.channel.post(["caption", number], features)
            weakref.finalize(caption, self.channel.post, ["forget caption", number]).atexit = False
        return self._captions[caption]


class LeadCache:
    """A history of which every rank has its heads and layers; it says to all what happens to it."""

    def __init__(
        self,
        config: CacheConfig,
        channel: Channel,
        parts: Sequence[Part],
        make_local: MakeCache = KeyValueCache,
    ) -> None:
        """``config`` is that of the whole; ``parts`` those of all processes.

        Raises:
            ValueError: fewer tokens in a chunk than ranks.
        """
        ranks = parts[0].split.ranks
        require(
            config.tokens >= ranks,
            f"a chunk has {config.tokens} tokens, which cannot be split over {ranks} ranks",
        )
        self._begin(config, channel, parts, make_local)
        self.local = make_local(local_config(config, parts[0]))
        facts = {
            "worlds": config.worlds,
            "history": config.history,
            "window": config.window,
            "tokens": config.tokens,
        }
        channel.post(["cache", self.name, facts])

    def _begin(
        self, config: CacheConfig, channel: Channel, parts: Sequence[Part], make_local: MakeCache
    ) -> None:
        self.config, self.channel, self.parts = config, channel, parts
        self.make_local = make_local
        self.name = channel.number()
        weakref.finalize(self, channel.post, ["forget cache", self.name]).atexit = False

    @property
    def filled(self) -> list[int]:
        """As that of the part here."""
        return self.local.filled

    def reads(
        self, worlds: Sequence[int], first_slot: int, ranges: Sequence[int], backend: Backend
    ) -> LeadReads:
        """Self-attention of one forward."""
        return LeadReads(self, worlds, first_slot, ranges, backend)

    def share(self) -> LeadCache:
        """A copy that costs nothing until one side writes."""
        twin = object.__new__(LeadCache)
        twin._begin(self.config, self.channel, self.parts, self.make_local)
        twin.local = self.local.share()
        self.channel.post(["share", self.name, twin.name])
        return twin

    def own(self) -> None:
        """Nothing to do: every rank makes its part its own when it is written to."""

    def clean(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all ranks, gathered: each (Ly, B, history, S, Hkv, hd) on the CPU.

        Raises:
            RankLostError: a follower has gone.
        """
        config = self.config
        slots = (config.worlds, config.history, config.tokens)
        k = torch.zeros(
            config.layers, *slots, config.kv_groups, config.head_dim, dtype=config.dtype
        )
        v = torch.zeros_like(k)
        with self.channel.call(["gather", self.name]):
            for rank, part in enumerate(self.parts):
                shape = (len(part.layers), *slots, len(part.groups), config.head_dim)
                for whole, mine in zip((k, v), self.local.clean(), strict=True):
                    piece = mine
                    if rank:
                        piece = torch.empty(shape, dtype=config.dtype, device=config.device)
                        receive(piece, rank)
                    layers, groups = part.layers, part.groups
                    whole[layers.start : layers.stop, ..., groups.start : groups.stop, :] = (
                        piece.cpu()
                    )
        return k, v

    def taken(self, other: Cache) -> LeadCache:
        """``other``, shared where it is of these ranks, otherwise every rank takes its part."""
        if isinstance(other, LeadCache) and other.channel is self.channel:
            return other.share()
        config = replace(self.config, worlds=other.config.worlds)
        cache = LeadCache(config, self.channel, self.parts, self.make_local)
        k, v = other.clean()
        with self.channel.call(["fill", cache.name, other.filled], [k, v]):
            cache.local = filled_part(cache.local, self.parts[0], other.filled, k, v)
        return cache

    def copy_world(self, world: int, other: Cache, row: int) -> None:
        """Make the history of ``world`` that of world ``row`` in ``other``."""
        source = self.taken(other)
        self.channel.post(["copy", self.name, world, source.name, row])
        self.local.copy_world(world, source.local, row)

    def forget(self, worlds: Sequence[int]) -> None:
        """Drop the history of these worlds."""
        self.channel.post(["forget", self.name, list(worlds)])
        self.local.forget(worlds)

    def push(self, worlds: Sequence[int]) -> None:
        """Make room for one more clean chunk."""
        self.channel.post(["push", self.name, list(worlds)])
        self.local.push(worlds)


class LeadReads:
    """Self-attention of a forward, so that it can be described to the followers."""

    def __init__(
        self,
        cache: LeadCache,
        worlds: Sequence[int],
        first_slot: int,
        ranges: Sequence[int],
        backend: Backend,
    ) -> None:
        self.cache, self.worlds, self.first_slot = cache, list(worlds), first_slot
        self.ranges, self.backend = list(ranges), backend
        self.local = cache.local.reads(worlds, first_slot, ranges, backend)

    def describe(self) -> list[object]:
        """What `follow` builds the same from."""
        return [self.cache.name, self.worlds, self.first_slot, self.ranges, self.backend]

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Not reached: the ranks write to their own parts."""
        raise NotImplementedError

    def read(self, layer: int, q: Tensor) -> Tensor:
        """Not reached: the ranks read their own parts."""
        raise NotImplementedError


class LeadTiles:
    """Runs the tiles of an autoencoder on all ranks in turn; see `magi_world.model.tiling`."""

    def __init__(self, vae: VAE, channel: Channel) -> None:
        self.vae, self.channel = vae, channel

    def __call__(
        self, model: Callable[[Tensor], Tensor], tiles: Iterable[Tensor]
    ) -> Iterator[Tensor]:
        """Results in the order of the tiles, a round of one tile a rank at a time."""
        name = "decode" if model is self.vae.decoder else "encode"
        size, waiting = self.channel.ranks.split.size, iter(tiles)
        while batch := list(islice(waiting, size)):
            yield from self._round(name, model, batch)

    def _round(
        self, name: str, model: Callable[[Tensor], Tensor], batch: list[Tensor]
    ) -> list[Tensor]:
        shapes = [list(tile.shape) for tile in batch]
        dtype = str(batch[0].dtype).removeprefix("torch.")
        with self.channel.call(["tiles", name, dtype, shapes]):
            for rank, tile in enumerate(batch[1:], start=1):
                send(tile, rank)
            results = [model(batch[0])]
            for rank in range(1, len(batch)):
                shape = torch.empty(5, dtype=torch.int64, device=batch[0].device)
                receive(shape, rank)
                result = results[0].new_empty(shape.tolist())
                receive(result, rank)
                results.append(result)
        return results


def local_config(config: CacheConfig, part: Part) -> CacheConfig:
    """Size of a rank's part of a cache."""
    return replace(config, layers=len(part.layers), kv_groups=len(part.groups))


def filled_part(cache: Cache, part: Part, filled: Sequence[int], k: Tensor, v: Tensor) -> Cache:
    """A cache like ``cache`` with a rank's part of the whole k, v (Ly, B, history, S, Hkv, hd)."""
    layers, groups = part.layers, part.groups
    mine = (layers.start, layers.stop), (groups.start, groups.stop)
    own = (x[slice(*mine[0]), ..., slice(*mine[1]), :] for x in (k, v))
    return cache.taken(KeyValueCache.from_clean(cache.config, list(filled), *own))
