"""The transformer of one rank: its layers, on its tokens of every chunk.

Shapes: B worlds, N chunks, S tokens a chunk, s those of this rank, D hidden.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from magi_world.config import DiTConfig
from magi_world.model.dit import Block, DiT, Pass
from magi_world.model.layers import Rope
from magi_world.parallel.attend import ExchangedAttention, TextBehind
from magi_world.parallel.exchange import Exchange
from magi_world.parallel.ranks import TOKENS, Ranks
from magi_world.parallel.split import Part, part_of, runs

_LAYER = "videodit_blocks.layers.{}."


class RankDiT(DiT):
    """`DiT` whose forward is run by all ranks together, each with the same arguments.

    Latents come in at the first stage and the velocity comes out at rank 0. Parameters have the
    names of the whole transformer's, those of other stages' layers are not there.
    """

    def __init__(self, config: DiTConfig, ranks: Ranks) -> None:
        """Raises:
        ValueError: the transformer cannot be split so.
        """
        self.part: Part = part_of(ranks.split, config, ranks.place.rank)
        super().__init__(config)
        self.ranks = ranks
        size = ranks.split.ranks
        group = ranks.mesh[TOKENS].get_group()
        self.exchange = Exchange(group, size, self.part.index)
        parts = [part_of(ranks.split, config, rank) for rank in range(size)]
        self.heads, self.groups = [p.heads for p in parts], [p.groups for p in parts]
        self.rope = LocalRope(config.head_dim, self.exchange)
        mine = {str(i): block for i, block in enumerate(super().blocks) if i in self.part.layers}
        # A dictionary keeps the layers' numbers, and so the names of their parameters.
        self.videodit_blocks.layers = nn.ModuleDict(mine)  # type: ignore[assignment]
        self._shape: tuple[int, ...] = ()
        self._keys_only = False

    @property
    def blocks(self) -> list[Block]:
        """The blocks of this stage, first to last."""
        layers = cast(nn.ModuleDict, self.videodit_blocks.layers)
        return cast(list[Block], list(layers.values()))

    @property
    def foreign(self) -> tuple[str, ...]:
        """Prefixes of the parameters that other stages have."""
        others = [i for i in range(self.config.layers) if i not in self.part.layers]
        return tuple(_LAYER.format(i) for i in others)

    def forward(self, x: Tensor, given: Pass) -> Tensor:
        """See `DiT.forward`; on other ranks than 0 the result is all zeros."""
        self._shape, self._keys_only = x.shape, given.keys_only
        count = x.shape[3] * x.shape[4] * x.shape[5] // self.config.patch**2
        # Later stages need what comes out of this one, so only the last may stop at its keys.
        mine = replace(given, keys_only=given.keys_only and self.part.last)
        if self.part.split.ranks > 1:
            attention = ExchangedAttention(
                given.own, given.text, self.exchange, self.heads, self.groups, count
            )
            mine = replace(mine, own=attention, text=TextBehind(attention))
        result = super().forward(x, mine)
        if isinstance(mine.own, ExchangedAttention):
            mine.own.store(len(self.blocks) - 1)
        return x if given.keys_only else result

    def embed(self, x: Tensor) -> Tensor:
        """Latents (B, N, C, W, H, W') -> this rank's tokens (B, N, s, D), from where they are."""
        b, n, _, w, height, width = x.shape
        count = w * (height // self.config.patch) * (width // self.config.patch)
        mine = self.exchange.tokens(count)
        if self.part.first:
            return super().embed(x)[:, :, mine.start : mine.stop].contiguous()
        tokens = x.new_empty((b, n, len(mine), self.config.hidden), dtype=self.dtype)
        receive(tokens, self.ranks.place.rank - self.part.split.ranks)
        return tokens

    def head(self, tokens: Tensor, h: int, w: int) -> Tensor:
        """This rank's tokens (B, N, s, D) -> to the next stage, or to rank 0 and its result."""
        rank, split = self.ranks.place.rank, self.part.split
        if not self.part.last:
            send(tokens, rank + split.ranks)
        elif rank:
            send(tokens, 0)
        if rank or self._keys_only:
            return tokens.new_zeros(self._shape, dtype=torch.float32)
        return super().head(self._collect(tokens), h, w)

    def _collect(self, tokens: Tensor) -> Tensor:
        """All tokens (B, N, S, D), from the ranks of the last stage, at rank 0."""
        split = self.part.split
        b, n, _, hidden = tokens.shape
        _, _, _, w, height, width = self._shape
        count = w * (height // self.config.patch) * (width // self.config.patch)
        last = (split.stages - 1) * split.ranks
        pieces = []
        for index, run in enumerate(runs(count, split.ranks)):
            if last + index == 0:
                pieces.append(tokens)
                continue
            piece = tokens.new_empty((b, n, len(run), hidden))
            receive(piece, last + index)
            pieces.append(piece)
        return torch.cat(pieces, dim=2)


class LocalRope(Rope):
    """Positions of this rank's tokens."""

    def __init__(self, head_dim: int, exchange: Exchange) -> None:
        super().__init__(head_dim)
        self.exchange = exchange

    def forward(self, frames: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Sine and cosine, each (B, N, s, 1, 3K)."""
        sin, cos = super().forward(frames, height, width)
        mine = self.exchange.tokens(sin.shape[2])
        return sin[:, :, mine.start : mine.stop], cos[:, :, mine.start : mine.stop]


def send(x: Tensor, rank: int) -> None:
    """To another rank, as bytes."""
    dist.send(x.contiguous().view(-1).view(torch.uint8), rank)


def receive(x: Tensor, rank: int) -> None:
    """Fill x, which is contiguous, from another rank."""
    dist.recv(x.view(-1).view(torch.uint8), rank)
