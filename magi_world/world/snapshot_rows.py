"""Snapshots taken apart into single worlds, and put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from magi_world.config import require
from magi_world.sampling.cache import KeyValueCache
from magi_world.sampling.stream import StreamState
from magi_world.world.snapshot import Snapshot


def row_of(snapshot: Snapshot, row: int) -> Snapshot:
    """One world of a snapshot, as a copy that keeps none of the others in memory.

    Raises:
        ValueError: there is no such world.
    """
    count = snapshot.num_worlds
    require(0 <= row < count, f"the snapshot holds {count} worlds; there is no world {row}")
    state = snapshot.state
    k, v = (x[:, row : row + 1] for x in state.cache.clean())
    config = replace(state.cache.config, worlds=1)
    cache = KeyValueCache.from_clean(config, [state.cache.filled[row]], k, v)
    one = StreamState(
        (state.lanes[row],),
        state.latents[row : row + 1].clone(),
        state.newest_clean[row : row + 1].clone(),
        cache,
    )
    return replace(snapshot, state=one, stories=(snapshot.stories[row],))


def joined(snapshots: Sequence[Snapshot]) -> Snapshot:
    """All worlds of snapshots of the same world in one, in this order.

    Raises:
        ValueError: none, or snapshots of different worlds.
    """
    require(bool(snapshots), "snapshots is empty; there must be at least one")
    first = snapshots[0]
    for other in snapshots[1:]:
        require(
            (other.fingerprint, other.sampler, other.noise_scale)
            == (first.fingerprint, first.sampler, first.noise_scale),
            f"snapshots are of {first.fingerprint} and {other.fingerprint}, or of other samplers; "
            "they must be of one world",
        )
    states = [snapshot.state for snapshot in snapshots]
    pairs = [state.cache.clean() for state in states]
    k, v = (torch.cat([pair[i] for pair in pairs], 1) for i in range(2))
    filled = [count for state in states for count in state.cache.filled]
    config = replace(first.state.cache.config, worlds=len(filled))
    state = StreamState(
        tuple(lane for one in states for lane in one.lanes),
        torch.cat([one.latents for one in states]),
        torch.cat([one.newest_clean for one in states]),
        KeyValueCache.from_clean(config, filled, k, v),
    )
    return replace(
        first, state=state, stories=tuple(story for one in snapshots for story in one.stories)
    )
