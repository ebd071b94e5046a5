"""The state of an environment in the middle of an episode: kept, saved, loaded; its generators.

Shapes: B worlds.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.utils.seeding import np_random as seeded

from magi_world.io.records import field_of, parse_json
from magi_world.io.safetensors_io import load_tensors, read_metadata, save_tensors
from magi_world.world.chunk import Chunk
from magi_world.world.snapshot import Snapshot

MAX_SEED = 2**31
STATE_VERSION = 1
_PER_WORLD = ("index", "prompts", "lands", "skip")
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
        return self.world.num_worlds

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, which `magi_world.Snapshot.load` can read as well."""
        tensors, metadata = self.world.packed()
        tensors["env.latents"] = self.chunk.latents
        if self.chunk.pixels is not None:
            tensors["env.pixels"] = self.chunk.decoded
        record = {
            "version": STATE_VERSION,
            **{name: getattr(self.chunk, name) for name in _PER_WORLD},
            **{name: getattr(self, name) for name in ("first", "ended", "rngs")},
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
    version = field_of(record, "version", int, where)
    if version != STATE_VERSION:
        raise ValueError(
            f"{path} is an environment's snapshot of version {version}; this package "
            f"reads version {STATE_VERSION}"
        )
    count = world.num_worlds

    def each(name: str, kind: Any) -> tuple[Any, ...]:
        values: tuple[Any, ...] = field_of(record, name, tuple[kind, ...], where)
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
    facts = (each("index", int), each("prompts", str), each("lands", int), each("skip", int))
    rngs = each("rngs", dict[str, Any])
    for state in rngs:
        rng_from(state)
    chunk = Chunk(latents, *facts, pixels)
    return EnvSnapshot(world, chunk, each("first", int), each("ended", bool), rngs)


def rows_of(chunk: Chunk, rows: Sequence[int]) -> Chunk:
    """The chunk of some of its worlds, in the given order; a world may come several times."""
    rows = list(rows)
    own: dict[str, Any] = {n: tuple(getattr(chunk, n)[row] for row in rows) for n in _PER_WORLD}
    return replace(
        chunk,
        latents=chunk.latents[rows],
        before=None if chunk.before is None else chunk.before[rows],
        pixels=None if chunk.pixels is None else chunk.decoded[rows],
        **own,
    )


def joined(chunks: Sequence[Chunk], rows: Sequence[int]) -> Chunk:
    """``rows`` out of all rows of some chunks; pixels only where all of them have them."""
    pixels = [c.decoded for c in chunks if c.pixels is not None]
    own: dict[str, Any] = {n: sum((getattr(c, n) for c in chunks), ()) for n in _PER_WORLD}
    before = [c.before for c in chunks if c.before is not None]
    whole = replace(
        chunks[0],
        latents=torch.cat([c.latents for c in chunks]),
        before=torch.cat(before) if len(before) == len(chunks) else None,
        pixels=torch.cat(pixels) if len(pixels) == len(chunks) else None,
        **own,
    )
    return rows_of(whole, rows)


class Generators:
    """One random generator per world, as each `gymnasium.Env` has its own, so that no world's
    episodes shift another's.

    seeds: of each generator; -1 where it came from a snapshot or is not made yet.
    """

    def __init__(self, count: int) -> None:
        self._rngs: list[np.random.Generator | None] = [None] * count
        self.seeds = [-1] * count

    def __getitem__(self, row: int) -> np.random.Generator:
        """The generator of a world; made now, from fresh entropy, if it was never seeded."""
        rng = self._rngs[row]
        if rng is None:
            rng, self.seeds[row] = seeded()
            self._rngs[row] = rng
        return rng

    def put(self, row: int, rng: np.random.Generator) -> None:
        self._rngs[row], self.seeds[row] = rng, -1

    def seed(self, row: int, seed: int | None) -> None:
        if seed is not None:
            self._rngs[row], self.seeds[row] = seeded(seed)

    def copy(self) -> Generators:
        twin = Generators(len(self.seeds))
        twin._rngs, twin.seeds = copy.deepcopy(self._rngs), list(self.seeds)
        return twin

    def draw(self, row: int, seed: int | None, fixed: int | None) -> int:
        """The seed of the next episode: the given one, else fixed + row, else a new one."""
        if seed is not None:
            return seed
        return int(self[row].integers(MAX_SEED)) if fixed is None else fixed + row

    def states(self) -> list[dict[str, Any]]:
        return [rng_state(self[row]) for row in range(len(self.seeds))]

    def restore(self, states: Sequence[dict[str, Any]]) -> None:
        """Put them back to ``states``, one per world."""
        self._rngs, self.seeds = [rng_from(s) for s in states], [-1] * len(self.seeds)


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
