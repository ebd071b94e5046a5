"""One world of a stream: what is in flight, under which captions, and what it began with.

Shapes: B worlds, N chunks in flight, C latent channels, W latent frames a chunk, H, W' latent size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from magi_world.sampling.captions import TextKeys
from magi_world.sampling.flight import Flight


@dataclass(frozen=True)
class Lane:
    """Everything about one world that is not in the big tensors.

    captions: one per chunk in flight, oldest first.
    clean_pending: the newest clean chunk's keys are not in the cache yet.
    start: latents (C, w, H, W'), w < chunk_width, that replace the first frames of chunk
        ``start_chunk``; None without a partial prefix.
    """

    seed: int = 0
    flight: Flight = field(default_factory=Flight)
    captions: tuple[TextKeys, ...] = ()
    clean_pending: bool = False
    start: Tensor | None = None
    start_chunk: int = 0


def overwrite_start(lanes: Sequence[Lane], x: Tensor) -> None:
    """Put a partial prefix over the first frames of its chunk in x (B, N, C, ...), in place."""
    for row, lane in enumerate(lanes):
        chunk = lane.start_chunk - lane.flight.first
        if lane.start is not None and 0 <= chunk < x.shape[1]:
            x[row, chunk, :, : lane.start.shape[1]] = lane.start


def frame_index(first_chunks: Sequence[int], count: int, like: Tensor) -> Tensor:
    """(B, count, W) index of each latent frame of ``count`` chunks from the given ones on.

    ``like`` is a latent tensor (.., W, H, W') on the device that is wanted, where all of it is
    made: nothing is copied from the host.
    """
    width, device = like.shape[-3], like.device
    rows = {
        first: torch.arange(first * width, (first + count) * width, device=device).view(count, -1)
        for first in set(first_chunks)
    }
    if len(rows) == 1:
        return rows[first_chunks[0]].expand(len(first_chunks), -1, -1)
    return torch.stack([rows[first] for first in first_chunks])
