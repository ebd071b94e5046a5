"""Forwards that are recorded once and replayed: CUDA graphs of a stream in its steady state.

A small world's forward is hundreds of kernels of microseconds, and launching them costs more than
running them. Recorded, they are one launch. A recording reads and writes fixed memory: latents and
frame numbers are copied into buffers of its own, the cache is rolled in place, and what captions,
gates and times are read from is kept with it. All else that a forward depends on is in the key that
it is known by.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from magi_world.model.dit import DiT, Pass

GRAPHS_KEPT = 128
KEYS_KEPT = 512
Work = Callable[[], Tensor]


def again(work: Work) -> Work:
    """Where there is nothing to record with: the same work on the same memory, run anew."""
    return work


def on_card(work: Work) -> Work:
    """``work`` recorded as a CUDA graph; it has run before, so that nothing is set up in it."""
    graph = torch.cuda.CUDAGraph()
    # Pixels may be made at the same time, by another thread.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        out = work()

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay


@dataclass(frozen=True, eq=False)
class Recording:
    """A forward on memory of its own. given, kept: what it reads, so that it stays there."""

    x: Tensor
    given: Pass
    kept: object
    replay: Work


class Graphs:
    """The recordings of one stream."""

    def __init__(self, device: torch.device) -> None:
        there = device.type == "cuda" and torch.cuda.is_available()
        self.record = on_card if there else again
        self.known: OrderedDict[Hashable, Recording] = OrderedDict()
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._home: Tensor | None = None

    def forward(
        self, dit: DiT, x: Tensor, given: Pass, key: Hashable, home: Tensor, kept: object
    ) -> Tensor:
        """``dit(x, given)``: run at first, recorded when the key comes again, then replayed.

        Args:
            key: everything but the numbers in x and ``given.frames`` that the result depends on.
            home: the cache's memory. Where it is another one (the old one is a snapshot's now),
                recordings of the old one are dropped.
            kept: tensors that are read and not in ``given``.

        Returns:
            A tensor that the next call with the same key writes to.
        """
        if home is not self._home:
            self.known.clear()
            self._home = home
        if key not in self.known:
            if key not in self._seen:
                self._seen[key] = None
                if len(self._seen) > KEYS_KEPT:
                    self._seen.popitem(last=False)
                return dit(x, given)
            self.known[key] = self._recorded(dit, x, given, kept)
            if len(self.known) > GRAPHS_KEPT:
                self.known.popitem(last=False)
        self.known.move_to_end(key)
        recording = self.known[key]
        recording.x.copy_(x)
        recording.given.frames.copy_(given.frames)
        return recording.replay()

    def _recorded(self, dit: DiT, x: Tensor, given: Pass, kept: object) -> Recording:
        # Positions are worked out inside, from the frames: what others made is not there later.
        own = replace(given, frames=given.frames.clone(), memo=None)
        mine = x.clone(memory_format=torch.contiguous_format)
        return Recording(mine, own, kept, self.record(lambda: dit(mine, own)))
