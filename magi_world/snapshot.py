"""The state of a world, kept, saved and loaded: rewind, fork and resume all go through here.

A snapshot file is one safetensors file: tensors of the stream, and JSON for the rest. Nothing in
it is executed when it is read.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from magi_world.config import MagiConfig, SamplerConfig
from magi_world.sampling.cache import CacheConfig, KeyValueCache
from magi_world.sampling.captions import TextKeys
from magi_world.sampling.flight import Flight
from magi_world.sampling.lane import Lane
from magi_world.sampling.stream import StreamState
from magi_world.spec import WorldSpec
from magi_world.weights import load_tensors, read_metadata, save_tensors

SNAPSHOT_VERSION = 1


@dataclass(frozen=True)
class Story:
    """What has been said to one world: its scene, the command in force, and how far it is.

    steps: chunks since its reset.    lands: index of the first chunk under the command in force.
    """

    scene: str = ""
    command: str = ""
    steps: int = 0
    lands: int = 0


@dataclass(frozen=True)
class Snapshot:
    """Everything that decides the future of a `World`. It never changes, and may be shared."""

    fingerprint: str
    sampler: SamplerConfig
    state: StreamState
    stories: tuple[Story, ...]

    @property
    def num_worlds(self) -> int:
        """Worlds in it."""
        return len(self.stories)

    def save(self, path: str | Path) -> None:
        """Write it to one file, whole or not at all."""
        state, cache = self.state, self.state.cache
        k, v = cache.clean()
        tensors = {"latents": state.latents, "newest_clean": state.newest_clean, "k": k, "v": v}
        captions: list[TextKeys] = []
        lanes = [_lane_record(lane, captions, tensors, i) for i, lane in enumerate(state.lanes)]
        for i, caption in enumerate(captions):
            if caption.features is not None:
                tensors[f"caption.{i}"] = caption.features
        record = {
            "version": SNAPSHOT_VERSION,
            "fingerprint": self.fingerprint,
            "sampler": asdict(self.sampler),
            "stories": [asdict(s) for s in self.stories],
            "lanes": lanes,
            "captions": len(captions),
            "flight": cache.config.flight,
            "filled": cache.filled,
        }
        save_tensors(path, tensors, {"snapshot": json.dumps(record)})

    @staticmethod
    def load(path: str | Path) -> Snapshot:
        """Read a snapshot; its tensors lie on the CPU until it is restored.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: damaged, no snapshot, or written by another version.
        """
        record = json.loads(read_metadata(path).get("snapshot", "null"))
        if not isinstance(record, dict):
            raise ValueError(f"{path} is not a snapshot: its header has no 'snapshot' record")
        if record["version"] != SNAPSHOT_VERSION:
            raise ValueError(
                f"{path} is a snapshot of version {record['version']}; this package reads "
                f"version {SNAPSHOT_VERSION}"
            )
        tensors = load_tensors(path)
        captions = [
            TextKeys(tensors.get(f"caption.{i}"), layers=()) for i in range(record["captions"])
        ]
        lanes = tuple(_lane(entry, captions, tensors, i) for i, entry in enumerate(record["lanes"]))
        cache = _cache(tensors["k"], tensors["v"], record["flight"], record["filled"])
        sampler: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in record["sampler"].items()
        }
        return Snapshot(
            record["fingerprint"],
            SamplerConfig(**sampler),
            StreamState(lanes, tensors["latents"], tensors["newest_clean"], cache),
            tuple(Story(**s) for s in record["stories"]),
        )


def check_snapshot(
    snapshot: Snapshot, spec: WorldSpec, config: MagiConfig, chunk_shape: tuple[int, ...]
) -> None:
    """Raise ValueError unless the snapshot is of this world, sampler and picture size."""
    if not isinstance(snapshot, Snapshot):
        raise ValueError(f"snapshot is a {type(snapshot).__name__}; it must be a Snapshot")
    pairs = (
        ("world", snapshot.fingerprint, spec.fingerprint),
        ("sampler", snapshot.sampler, config.sampler),
        ("latent shape", tuple(snapshot.state.newest_clean.shape[1:]), chunk_shape),
    )
    for name, theirs, mine in pairs:
        if theirs != mine:
            raise ValueError(f"the snapshot is of another {name}: {theirs}, this is {mine}")


def _lane_record(
    lane: Lane, captions: list[TextKeys], tensors: dict[str, Tensor], index: int
) -> dict[str, Any]:
    for caption in lane.captions:
        if caption not in captions:
            captions.append(caption)
    if lane.start is not None:
        tensors[f"start.{index}"] = lane.start
    return {
        "seed": lane.seed,
        "flight": asdict(lane.flight),
        "captions": [captions.index(c) for c in lane.captions],
        "clean_pending": lane.clean_pending,
        "start_chunk": lane.start_chunk,
    }


def _lane(
    record: dict[str, Any], captions: list[TextKeys], tensors: dict[str, Tensor], index: int
) -> Lane:
    return Lane(
        seed=record["seed"],
        flight=Flight(**record["flight"]),
        captions=tuple(captions[i] for i in record["captions"]),
        clean_pending=record["clean_pending"],
        start=tensors.get(f"start.{index}"),
        start_chunk=record["start_chunk"],
    )


def _cache(k: Tensor, v: Tensor, flight: int, filled: list[int]) -> KeyValueCache:
    layers, worlds, history, tokens, groups, head_dim = k.shape
    config = CacheConfig(
        layers, worlds, history, flight, tokens, groups, head_dim, k.dtype, torch.device("cpu")
    )
    return KeyValueCache.from_clean(config, filled, k, v)


def placed(state: StreamState, device: torch.device) -> StreamState:
    """The same state on another device; itself where it is there already."""
    if state.latents.device == device:
        return state
    # The cache stays where it is: the stream takes of it what it keeps, and where it keeps it.
    return replace(
        state,
        latents=state.latents.to(device),
        newest_clean=state.newest_clean.to(device),
    )
