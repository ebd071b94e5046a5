"""The state of an environment in the middle of an episode: kept, saved, loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from magi_world.chunk import Chunk
from magi_world.snapshot import Snapshot
from magi_world.weights import load_tensors, read_metadata, save_tensors

STATE_VERSION = 1


@dataclass(frozen=True, eq=False)
class EnvSnapshot:
    """All that decides what an environment does next. It never changes, and may be shared.

    world: state of the worlds.    chunk: the one on show.
    first: per world, index of the chunk that its episode began with.
    ended: per world, whether its episode is over.
    rngs: per world, state of the generator that later seeds are drawn from.
    """

    world: Snapshot
    chunk: Chunk
    first: tuple[int, ...]
    ended: tuple[bool, ...]
    rngs: tuple[dict[str, Any], ...]

    @property
    def num_worlds(self) -> int:
        """Worlds in it."""
        return self.world.num_worlds

    def source(self, row: int) -> int:
        """Which of its worlds continues in world ``row``: that one, or the only one."""
        return 0 if self.num_worlds == 1 else row

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, which `magi_world.Snapshot.load` can read as well."""
        self.world.save(path)
        tensors, metadata = dict(load_tensors(path)), read_metadata(path)
        tensors["env.latents"] = self.chunk.latents
        if self.chunk.pixels is not None:
            tensors["env.pixels"] = self.chunk.pixels
        record = {
            "version": STATE_VERSION,
            "index": self.chunk.index,
            "prompts": self.chunk.prompts,
            "lands": self.chunk.lands,
            "skip": self.chunk.skip,
            "first": self.first,
            "ended": self.ended,
            "rngs": self.rngs,
        }
        save_tensors(path, _own(tensors), {**metadata, "env": json.dumps(record)})

    @staticmethod
    def load(path: str | Path) -> EnvSnapshot:
        """Read a file of `save`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: damaged, no such snapshot, or of another version.
        """
        snapshot = load_snapshot(path)
        if not isinstance(snapshot, EnvSnapshot):
            raise ValueError(f"{path} is the snapshot of a world, not of an environment")
        return snapshot

    def __deepcopy__(self, memo: dict[int, Any]) -> EnvSnapshot:
        return self


def load_snapshot(path: str | Path) -> EnvSnapshot | Snapshot:
    """The snapshot in a file, of an environment or of a bare world.

    Raises:
        As `EnvSnapshot.load`.
    """
    world = Snapshot.load(path)
    text = read_metadata(path).get("env")
    if text is None:
        return world
    record = json.loads(text)
    if record["version"] != STATE_VERSION:
        raise ValueError(
            f"{path} is an environment's snapshot of version {record['version']}; this package "
            f"reads version {STATE_VERSION}"
        )
    tensors = load_tensors(path, prefix="env.")
    chunk = Chunk(
        tensors["latents"],
        tuple(record["index"]),
        tuple(record["prompts"]),
        tuple(record["lands"]),
        tuple(record["skip"]),
        tensors.get("pixels"),
    )
    return EnvSnapshot(
        world, chunk, tuple(record["first"]), tuple(record["ended"]), tuple(record["rngs"])
    )


def rng_state(rng: np.random.Generator) -> dict[str, Any]:
    """State of a generator, as JSON can hold it."""
    return dict(rng.bit_generator.state)


def rng_from(state: dict[str, Any]) -> np.random.Generator:
    """The generator with that state."""
    bits = getattr(np.random, state["bit_generator"])()
    bits.state = state
    return np.random.Generator(bits)


def _own(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    # The file is about to be replaced, and these are views of it.
    return {name: tensor.clone() for name, tensor in tensors.items()}
