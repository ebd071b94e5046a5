"""Self-attention and text attention of one forward, where tokens and heads are split over ranks.

The callables of `DiT.forward`, in the order in which it calls them for a layer:

    write   keys and values set out together to the ranks of their heads
    read    the queries follow; own heads are attended, and the result sets out for home
    text    the captions are read while it travels; then it is complete
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from magi_world.model.dit import CrossAttend, SelfAttend
from magi_world.parallel.exchange import Exchange, Finish


class ExchangedAttention:
    """Both callables of a forward. ``own`` reads a cache that holds this rank's groups alone."""

    def __init__(
        self,
        own: SelfAttend,
        text: CrossAttend,
        exchange: Exchange,
        heads: Sequence[range],
        groups: Sequence[range],
        count: int,
    ) -> None:
        """heads, groups: those of each rank.    count: tokens of a chunk, on all ranks."""
        self.own, self.inner_text, self.exchange = own, text, exchange
        self.heads, self.groups, self.count = heads, groups, count
        self._keys: Finish | None = None
        self._home: tuple[Tensor, Finish] | None = None

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """k, v (B, N, s, Hkv, hd) of this rank's tokens."""
        self._keys = self.exchange.to_heads(torch.stack([k, v]), self.groups, self.count)

    def store(self, layer: int) -> None:
        """Store what `write` sent, if it is still on its way."""
        if self._keys is not None:
            self.own.write(layer, *self._keys())
        self._keys = None

    def read(self, layer: int, q: Tensor) -> Tensor:
        """q (B, N, s, Hq, hd) of this rank's tokens. The result is complete after `text`."""
        queries = self.exchange.to_heads(q[None], self.heads, self.count)
        self.store(layer)
        # The chunks of a forward read each other's keys, so these are stored before the queries.
        finish = self.exchange.to_tokens(self.own.read(layer, queries()[0]))
        out = torch.empty_like(q)
        self._home = out, finish
        return out

    def text(self, layer: int, q: Tensor) -> Tensor:
        """q (B, N, s, Hq, hd) of this rank's tokens; same shape."""
        words = self.inner_text(layer, q)
        assert self._home is not None, "read comes first"
        out, finish = self._home
        out.copy_(finish())
        self._home = None
        return words


class TextBehind:
    """The text callable of an `ExchangedAttention`."""

    def __init__(self, attention: ExchangedAttention) -> None:
        self.attention = attention

    def __call__(self, layer: int, q: Tensor) -> Tensor:
        """q (B, N, s, Hq, hd) of this rank's tokens; same shape."""
        return self.attention.text(layer, q)

    def summary(self, null: Tensor) -> Tensor:
        """As that of the captions."""
        return self.attention.inner_text.summary(null)
