"""The other ranks: they have a part of the transformer and of every history, and obey rank 0."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from magi_world.model.dit import Pass
from magi_world.model.vae import VAE
from magi_world.parallel.channel import Order, next_orders
from magi_world.parallel.dit import RankDiT, receive, send
from magi_world.parallel.lead import filled_part, local_config
from magi_world.parallel.ranks import RankLostError, Ranks
from magi_world.sampling.kv_cache import (
    Cache,
    CacheConfig,
    KeyValueCache,
    MakeCache,
    TextKV,
    TextReads,
)


def follow(ranks: Ranks, dit: RankDiT, vae: VAE, make_local: MakeCache) -> int:
    """Do what rank 0 says until it has no more to say; the exit status of this process.

    Stop signals are left to rank 0, which a terminal and torchrun send them to as well.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    follower = Follower(ranks, dit, vae, make_local)
    try:
        while follower.obey(next_orders(ranks)):
            pass
    except RankLostError as error:
        # Rank 0 tells the user. Where it is rank 0 that has gone, the next one does.
        if (
            ranks.place.rank == 1
            and str(error).startswith("rank 0")
            and "stopped" not in str(error)
        ):
            print(f"magi-world: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        ranks.report(f"{type(error).__name__}: {error}")
        return 1
    ranks.leave()
    return 0


class Follower:
    """What one rank has, by the numbers that rank 0 gave."""

    def __init__(
        self, ranks: Ranks, dit: RankDiT, vae: VAE, make_local: MakeCache = KeyValueCache
    ) -> None:
        self.ranks, self.dit, self.vae, self.make_local = ranks, dit, vae, make_local
        self.caches: dict[int, Cache] = {}
        self.captions: dict[int, TextKV] = {}
        self._orders: dict[str, Callable[..., object]] = {
            "forward": self._forward,
            "caption": self._caption,
            "forget caption": lambda name: self.captions.pop(name, None),
            "cache": self._cache,
            "share": self._share,
            "forget cache": lambda name: self.caches.pop(name, None),
            "push": lambda name, worlds: self.caches[name].push(worlds),
            "forget": lambda name, worlds: self.caches[name].forget(worlds),
            "copy": self._copy,
            "fill": self._fill,
            "gather": self._gather,
            "tiles": self._tiles,
        }

    @torch.inference_mode()
    def obey(self, orders: list[tuple[Order, list[Tensor]]]) -> bool:
        """Carry out a message; False says that it was the last.

        Raises:
            RankLostError: another rank has gone.
        """
        with self.ranks.watch():
            for (name, *arguments), tensors in orders:
                if name == "end":
                    return False
                self._orders[name](*arguments, *tensors)
        return True

    def _forward(
        self,
        own: list[Any],
        captions: list[list[int]],
        backend: Any,
        conditional: bool,
        interval: float | None,
        keys_only: bool,
        x: Tensor,
        t: Tensor,
        frames: Tensor,
    ) -> None:
        name, worlds, first_slot, ranges, own_backend = own
        reads = self.caches[name].reads(worlds, first_slot, ranges, own_backend)
        text = TextReads([[self.captions[c] for c in row] for row in captions], backend)
        self.dit(x, Pass(t, frames, reads, text, conditional, interval, keys_only))

    def _caption(self, name: int, features: Tensor | None = None) -> None:
        layers = tuple((k[None], v[None]) for k, v in self.dit.text_keys(features))
        self.captions[name] = TextKV(features, layers)

    def _cache(self, name: int, facts: dict[str, int]) -> None:
        sizes = self.dit.config
        config = CacheConfig(
            layers=sizes.layers,
            kv_groups=sizes.kv_groups,
            head_dim=sizes.head_dim,
            dtype=self.dit.dtype,
            device=self.ranks.device,
            **facts,
        )
        self.caches[name] = self.make_local(local_config(config, self.dit.part))

    def _share(self, name: int, twin: int) -> None:
        self.caches[twin] = self.caches[name].share()

    def _copy(self, name: int, world: int, other: int, row: int) -> None:
        self.caches[name].copy_world(world, self.caches[other], row)

    def _fill(self, name: int, filled: list[int], k: Tensor, v: Tensor) -> None:
        self.caches[name] = filled_part(self.caches[name], self.dit.part, filled, k, v)

    def _gather(self, name: int) -> None:
        for mine in self.caches[name].clean():
            send(mine, 0)

    def _tiles(self, name: str, dtype: str, shapes: list[list[int]]) -> None:
        rank = self.ranks.place.rank
        if rank >= len(shapes):
            return
        tile = torch.empty(shapes[rank], dtype=getattr(torch, dtype), device=self.ranks.device)
        receive(tile, 0)
        result = (self.vae.decoder if name == "decode" else self.vae.encode)(tile)
        send(torch.tensor(result.shape, dtype=torch.int64, device=self.ranks.device), 0)
        send(result, 0)
