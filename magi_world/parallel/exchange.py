"""The all-to-all exchange around attention: from tokens to heads, and back.

Shapes: B worlds, N chunks, S tokens a chunk, s those of a rank, H heads, e those of a rank,
hd head dim, K tensors that travel together.

Everything travels as bytes in one flat buffer, so any dtype works on any backend, and ranks may
have different numbers of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from magi_world.parallel.split import runs

Finish = Callable[[], Tensor]


class Exchange:
    """Exchanges among the ranks of one stage. ``index`` is this rank's place in ``group``."""

    def __init__(self, group: dist.ProcessGroup, ranks: int, index: int) -> None:
        self.group, self.ranks, self.index = group, ranks, index

    def tokens(self, count: int) -> range:
        """Which of ``count`` tokens are here."""
        return runs(count, self.ranks)[self.index]

    def to_heads(self, x: Tensor, heads: Sequence[range], count: int) -> Finish:
        """Begin to send x (K, B, N, s, H, hd); the heads of rank r are ``heads[r]``.

        Args:
            count: tokens S of all ranks together.

        Returns:
            What waits for the result (K, B, N, S, e, hd), this rank's heads of all tokens.
        """
        k, b, n, _, _, hd = x.shape
        mine = len(heads[self.index])
        pieces = [x[..., run.start : run.stop, :] for run in heads]
        shapes = [(k, b, n, len(run), mine, hd) for run in runs(count, self.ranks)]
        arrived = self._start(pieces, shapes)
        return lambda: torch.cat(arrived.wait(), dim=3)

    def to_tokens(self, x: Tensor) -> Finish:
        """Begin to send x (B, N, S, e, hd) back.

        Returns:
            What waits for the result (B, N, s, H, hd), all heads of this rank's tokens.
        """
        b, n, count, heads, hd = x.shape
        places = runs(count, self.ranks)
        pieces = [x[:, :, run.start : run.stop] for run in places]
        shapes = [(b, n, len(places[self.index]), heads, hd)] * self.ranks
        arrived = self._start(pieces, shapes)
        return lambda: torch.cat(arrived.wait(), dim=3)

    def _start(self, pieces: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> _Transfer:
        """Send ``pieces[r]`` to rank r; what comes from rank r has ``shapes[r]``."""
        like = pieces[0]
        sent = torch.cat([piece.reshape(-1) for piece in pieces]).view(torch.uint8)
        sizes = [torch.Size(shape).numel() * like.itemsize for shape in shapes]
        sent_sizes = [piece.numel() * like.itemsize for piece in pieces]
        received = torch.empty(sum(sizes), dtype=torch.uint8, device=like.device)
        work = dist.all_to_all_single(
            received, sent, sizes, sent_sizes, group=self.group, async_op=True
        )
        return _Transfer(work, sent, received.split(sizes), shapes, like.dtype)


@dataclass(frozen=True)
class _Transfer:
    """Bytes on their way. ``sent`` is kept because it is read until they have arrived."""

    work: dist.Work
    sent: Tensor
    received: Sequence[Tensor]
    shapes: Sequence[tuple[int, ...]]
    dtype: torch.dtype

    def wait(self) -> list[Tensor]:
        """What came from each rank."""
        self.work.wait()
        pairs = zip(self.received, self.shapes, strict=True)
        return [part.view(self.dtype).view(shape) for part, shape in pairs]
