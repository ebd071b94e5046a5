"""The state of an environment in the middle of an episode: kept, saved, loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from magi_world.io.records import field, parse_json
from magi_world.io.weights import load_tensors, read_metadata, save_tensors
from magi_world.world.chunk import Chunk
from magi_world.world.snapshot import Snapshot

STATE_VERSION = 1
# Names come from files: looked up here, and nowhere else.
_GENERATORS: dict[str, Callable[[], Any]] = {
    "PCG64": np.random.PCG64,
    "PCG64DXSM": np.random.PCG64DXSM,
    "MT19937": np.random.MT19937,
    "Philox": np.random.Philox,
    "SFC64": np.random.SFC64,
}


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
        tensors, metadata = self.world.packed()
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
        save_tensors(path, tensors, {**metadata, "env": json.dumps(record)})

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
    where = f"{path}: env"
    record = parse_json(text, where)
    version = field(record, "version", int, where)
    if version != STATE_VERSION:
        raise ValueError(
            f"{path} is an environment's snapshot of version {version}; this package "
            f"reads version {STATE_VERSION}"
        )
    count = world.num_worlds

    def each(name: str, kind: Any) -> tuple[Any, ...]:
        values: tuple[Any, ...] = field(record, name, tuple[kind, ...], where)
        if len(values) != count:
            raise ValueError(f"{where}: {name} has {len(values)} entries, not {count}")
        if kind is int and min(values) < 0:
            raise ValueError(f"{where}: {name} is {values}; none may be below 0")
        return values

    tensors = {n: t.clone() for n, t in load_tensors(path, prefix="env.").items()}
    latents, pixels = tensors.get("latents"), tensors.get("pixels")
    right = world.state.newest_clean.shape
    if latents is None or latents.shape != right or not torch.isfinite(latents).all():
        shape = None if latents is None else tuple(latents.shape)
        raise ValueError(
            f"{where}: latents have shape {shape}; they must be finite, {tuple(right)}"
        )
    if pixels is not None and (
        pixels.dtype != torch.uint8 or pixels.ndim != 5 or len(pixels) != count
    ):
        raise ValueError(
            f"{where}: pixels are {pixels.dtype} of shape {tuple(pixels.shape)}; they must be "
            f"uint8 ({count}, T, H, W, 3)"
        )
    chunk = Chunk(
        latents, each("index", int), each("prompts", str), each("lands", int), each("skip", int),
        pixels,
    )  # fmt: skip
    rngs = each("rngs", dict[str, Any])
    for state in rngs:
        rng_from(state)
    return EnvSnapshot(world, chunk, each("first", int), each("ended", bool), rngs)


def rng_state(rng: np.random.Generator) -> dict[str, Any]:
    """State of a generator, as JSON can hold it."""
    return dict(rng.bit_generator.state)


def rng_from(state: dict[str, Any]) -> np.random.Generator:
    """The generator with that state.

    Raises:
        ValueError: no state of one of NumPy's own generators.
    """
    name = state.get("bit_generator") if isinstance(state, dict) else None
    if not isinstance(name, str) or name not in _GENERATORS:
        raise ValueError(
            f"bit_generator is {name!r:.60}; it must be one of {', '.join(_GENERATORS)}"
        )
    bits = _GENERATORS[name]()
    try:
        bits.state = state
    except (KeyError, TypeError, ValueError, OverflowError, IndexError) as error:
        raise ValueError(f"the state of {name} is damaged: {error!r:.120}") from error
    return np.random.Generator(bits)
