"""Words and tensors from the leader to its followers.

A message is a list of orders, each a JSON list that begins with its name, and the tensors that they
come with. What has no result is kept back and travels with the next one that has.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from magi_world.parallel.ranks import RankLostError, Ranks

Order = list[Any]
# Most messages fit into the first piece, so that one broadcast is enough.
_PIECE = 4096
_DTYPES = {
    str(d).removeprefix("torch."): d
    for d in (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8)
}


class Channel:
    """The leader's side; `call` is for one thread at a time, and waits for the others."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.lock = threading.RLock()
        self.broken: str | None = None
        self._kept: deque[tuple[Order, list[Tensor]]] = deque()
        self._numbers = 0

    def number(self) -> int:
        """A new name for something that the followers have too."""
        with self.lock:
            self._numbers += 1
            return self._numbers

    def post(self, order: Order, tensors: Sequence[Tensor] = ()) -> None:
        """An order without a result, for the next message. Tensors must not change until then."""
        # A deque is appended to in one piece, so that a finaliser may do it at any moment.
        self._kept.append((order, list(tensors)))

    @contextmanager
    def call(self, order: Order, tensors: Sequence[Tensor] = ()) -> Iterator[None]:
        """Send an order and do the leader's own part of it within the block.

        Raises:
            RankLostError: a follower has gone, or an earlier order was not completed.
        """
        with self.lock:
            if self.broken is not None:
                raise RankLostError(self.broken)
            try:
                with self.ranks.watch():
                    kept = [self._kept.popleft() for _ in range(len(self._kept))]
                    self._send([*kept, (order, list(tensors))])
                    yield
            except BaseException as error:
                lost = isinstance(error, RankLostError)
                unfinished = f"rank 0 left an order unfinished ({error!r})"
                self.broken = str(error) if lost else unfinished
                raise

    def _send(self, orders: list[tuple[Order, list[Tensor]]]) -> None:
        about = [
            [order, [[str(x.dtype).removeprefix("torch."), list(x.shape)] for x in tensors]]
            for order, tensors in orders
        ]
        text = json.dumps(about).encode()
        first = torch.zeros(_PIECE, dtype=torch.uint8)
        first[:8] = torch.tensor([len(text)], dtype=torch.int64).view(torch.uint8)
        head = text[: _PIECE - 8]
        first[8 : 8 + len(head)] = torch.frombuffer(bytearray(head), dtype=torch.uint8)
        dist.broadcast(first, 0, group=self.ranks.control)
        if rest := text[_PIECE - 8 :]:
            dist.broadcast(
                torch.frombuffer(bytearray(rest), dtype=torch.uint8), 0, group=self.ranks.control
            )
        for _, tensors in orders:
            for x in tensors:
                _broadcast(x.to(self.ranks.device).contiguous())

    def close(self) -> None:
        """Let the followers go home."""
        if self.broken is None:
            with self.call(["end"]):
                pass
            self.broken = "the world was closed"
            self.ranks.leave()
        else:
            self.ranks.report(self.broken)


def next_orders(ranks: Ranks) -> list[tuple[Order, list[Tensor]]]:
    """Wait for the leader's next message.

    Raises:
        RankLostError: the leader or another rank has gone.
    """
    with ranks.watch():
        first = torch.zeros(_PIECE, dtype=torch.uint8)
        dist.broadcast(first, 0, group=ranks.control)
        length = int(first[:8].view(torch.int64))
        text = bytes(first[8 : 8 + length].numpy())
        if (missing := length - len(text)) > 0:
            rest = torch.zeros(missing, dtype=torch.uint8)
            dist.broadcast(rest, 0, group=ranks.control)
            text += bytes(rest.numpy())
        orders = []
        for order, shapes in json.loads(text):
            tensors = []
            for dtype, shape in shapes:
                x = torch.empty(shape, dtype=_DTYPES[dtype], device=ranks.device)
                _broadcast(x)
                tensors.append(x)
            orders.append((order, tensors))
        return orders


def _broadcast(x: Tensor) -> None:
    if x.numel():
        dist.broadcast(x.view(-1).view(torch.uint8), 0)
