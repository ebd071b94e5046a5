"""The state of a world, kept, saved and loaded: rewind, fork and resume all go through here.

A snapshot file is one safetensors file: tensors of the stream, and JSON for the rest. Nothing in
it is executed when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from magi_world.checks import MAX_SEED, check_prompt
from magi_world.config import SamplerConfig, require
from magi_world.io.records import build, field_of, parse_json
from magi_world.io.safetensors_io import load_tensors, read_metadata, save_tensors
from magi_world.language import CommandQueue
from magi_world.sampling.denoise import DenoisingWindow, extra_chunks
from magi_world.sampling.kv_cache import CacheConfig, KeyValueCache, TextKV
from magi_world.sampling.stream import ChunkStream, RowState, StreamState
from magi_world.world.spec import WorldSpec

SNAPSHOT_VERSION = 2


@dataclass(frozen=True)
class PromptState:
    """What has been said to one world: its scene, the command in force, and how far it is.

    steps: chunks since its reset.    lands: index of the first chunk under the command in force.
    queue: what else it was told to do.
    """

    scene: str = ""
    command: str = ""
    steps: int = 0
    lands: int = 0
    queue: CommandQueue = CommandQueue()  # noqa: RUF009


@dataclass(frozen=True)
class Snapshot:
    """Everything that decides the future of a `World`. It never changes, and may be shared."""

    fingerprint: str
    sampler: SamplerConfig
    state: StreamState
    prompts: tuple[PromptState, ...]
    noise_scale: float = 1.0

    @property
    def num_worlds(self) -> int:
        """Worlds in it."""
        return len(self.prompts)

    def reseeded(self, seed: int) -> Snapshot:
        """The same moment, from which chunks begin with the noise of another seed."""
        rows = tuple(replace(row, seed=seed) for row in self.state.rows)
        return replace(self, state=replace(self.state, rows=rows))

    def save(self, path: str | Path) -> None:
        """Write it to one file, whole or not at all."""
        save_tensors(path, *self.packed())

    def packed(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The tensors and the metadata of its file."""
        state, cache = self.state, self.state.cache
        k, v = cache.clean()
        tensors = {"latents": state.latents, "newest_clean": state.newest_clean, "k": k, "v": v}
        texts: list[TextKV] = []
        rows = [_row_record(row, texts, tensors, i) for i, row in enumerate(state.rows)]
        for i, text in enumerate(texts):
            if text.features is not None:
                tensors[f"caption.{i}"] = text.features
        record = {
            "version": SNAPSHOT_VERSION,
            "fingerprint": self.fingerprint,
            "sampler": asdict(self.sampler),
            "noise_scale": self.noise_scale,
            "prompts": [asdict(prompt) for prompt in self.prompts],
            "rows": rows,
            "captions": len(texts),
            "window": cache.config.window,
            "filled": cache.filled,
        }
        return tensors, {"snapshot": json.dumps(record)}

    @staticmethod
    def load(path: str | Path) -> Snapshot:
        """Read a snapshot; its tensors lie on the CPU until it is restored.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: damaged, no snapshot, or written by another version; the message names the
                field.
        """
        text = read_metadata(path).get("snapshot")
        if text is None:
            raise ValueError(f"{path} is not a snapshot: its header has no 'snapshot' record")
        where = f"{path}: snapshot"
        record = parse_json(text, where)
        version = field_of(record, "version", int, where)
        if version != SNAPSHOT_VERSION:
            raise ValueError(
                f"{path} is a snapshot of version {version}; this package reads "
                f"version {SNAPSHOT_VERSION}"
            )
        # Copies: what a mapped file holds may be overwritten, and lies at odd addresses, where
        # some sums come out another way.
        tensors = {name: tensor.clone() for name, tensor in load_tensors(path).items()}
        return _Reader(where, record, tensors).snapshot()


def check_snapshot(snapshot: Snapshot, spec: WorldSpec, stream: ChunkStream) -> None:
    """Raise ValueError unless the snapshot is of this world and of a stream of this form."""
    state, config = snapshot.state, stream.config
    window = config.sampler.window_size
    theirs, mine = state.cache.config, stream.cache.config
    pairs = (
        ("world", snapshot.fingerprint, spec.fingerprint),
        ("sampler", snapshot.sampler, config.sampler),
        ("noise scale", snapshot.noise_scale, config.noise_scale),
        ("latent shape", tuple(state.newest_clean.shape[1:]), stream.chunk_shape),
        ("window", tuple(state.latents.shape[1:]), (window, *stream.chunk_shape)),
        ("precision", theirs.dtype, mine.dtype),
        ("cache size", _size(theirs), _size(mine)),
    )
    for name, was, now in pairs:
        if was != now:
            raise ValueError(f"the snapshot is of another {name}: {was}, this is {now}")
    channels, width = stream.dit.config.caption_channels, stream.chunk_shape[1]
    for row in state.rows:
        for text in row.texts:
            if text.features is not None and text.features.shape[1] != channels:
                raise ValueError(
                    f"the snapshot has captions of {text.features.shape[1]} channels; this "
                    f"world has {channels}"
                )
        if row.start is not None:
            latent_channels, frames, *size = row.start.shape
            right = (stream.chunk_shape[0], *stream.chunk_shape[2:])
            if (latent_channels, *size) != right or not 0 < frames < width:
                raise ValueError(
                    f"the snapshot has a start of shape {tuple(row.start.shape)}; this world has "
                    f"chunks of {stream.chunk_shape}"
                )


def _size(cache: CacheConfig) -> tuple[int, ...]:
    layers, _, *rest = cache.shape()
    return (layers, *rest)


def _row_record(
    row: RowState, texts: list[TextKV], tensors: dict[str, Tensor], index: int
) -> dict[str, Any]:
    texts += [text for text in dict.fromkeys(row.texts) if text not in texts]
    if row.start is not None:
        tensors[f"start.{index}"] = row.start
    return {
        "seed": row.seed,
        "window": asdict(row.window),
        "captions": [texts.index(text) for text in row.texts],
        "clean_pending": row.clean_pending,
        "start_chunk": row.start_chunk,
    }


@dataclass(frozen=True)
class _RowRecord:
    """A row as it lies in a file."""

    seed: int
    window: DenoisingWindow
    captions: tuple[int, ...]
    clean_pending: bool
    start_chunk: int


class _Reader:
    """One file, in which nothing is believed."""

    def __init__(self, where: str, record: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.where, self.record, self.tensors = where, record, tensors

    def snapshot(self) -> Snapshot:
        where = self.where
        prompts = tuple(self._prompt(s) for s in self._field("prompts", list[Any]))
        self.worlds = len(prompts)
        self._check(self.worlds > 0, "prompts is empty")
        sampler = build(SamplerConfig, self._field("sampler", dict[str, Any]), f"{where}: sampler")
        newest = self._tensor("newest_clean", 5, torch.float32)
        latents = self._tensor("latents", 6, torch.float32)
        shape = (self.worlds, sampler.window_size, *newest.shape[1:])
        self._check(
            tuple(latents.shape) == shape, f"latents has shape {tuple(latents.shape)}, not {shape}"
        )
        self._check(newest.shape[0] == self.worlds, f"newest_clean is not of {self.worlds} worlds")
        noise = self._field("noise_scale", float)
        count = self._field("captions", int)
        self._check(0 <= count <= self.worlds * sampler.window_size, f"captions is {count}")
        texts = [self._text(i) for i in range(count)]
        rows = self._field("rows", list[_RowRecord])
        self._check(len(rows) == self.worlds, f"rows has {len(rows)} entries, not {self.worlds}")
        return Snapshot(
            self._field("fingerprint", str),
            sampler,
            StreamState(
                tuple(self._row(i, row, texts, sampler) for i, row in enumerate(rows)),
                latents,
                newest,
                self._cache(sampler),
            ),
            prompts,
            noise,
        )

    def _prompt(self, record: Any) -> PromptState:
        prompt = build(PromptState, record, f"{self.where}: prompt")
        self._check(min(prompt.steps, prompt.lands) >= 0, "a prompt counts chunks below 0")
        for text in filter(None, (prompt.scene, prompt.command)):
            check_prompt(text)
        return prompt

    def _row(
        self, index: int, record: _RowRecord, texts: list[TextKV], sampler: SamplerConfig
    ) -> RowState:
        window, size, name = record.window, sampler.window_size, f"row {index}"
        self._check(
            window.first >= 0 and 0 <= window.count <= size and 0 <= window.newest_stage <= size,
            f"{name} has an impossible window, {window}",
        )
        self._check(
            len(record.captions) == window.count
            and all(0 <= c < len(texts) for c in record.captions),
            f"{name} has captions {record.captions} for {window.count} chunks in flight",
        )
        self._check(0 <= record.seed < MAX_SEED, f"{name} has seed {record.seed}")
        self._check(record.start_chunk >= 0, f"{name} has start_chunk {record.start_chunk}")
        start = f"start.{index}"
        return RowState(
            seed=record.seed,
            window=window,
            texts=tuple(texts[i] for i in record.captions),
            clean_pending=record.clean_pending,
            start=self._tensor(start, 4, torch.float32) if start in self.tensors else None,
            start_chunk=record.start_chunk,
        )

    def _text(self, index: int) -> TextKV:
        name = f"caption.{index}"
        return TextKV(self._tensor(name, 2) if name in self.tensors else None, layers=())

    def _cache(self, sampler: SamplerConfig) -> KeyValueCache:
        k, v = self._tensor("k", 6), self._tensor("v", 6)
        layers, worlds, history, tokens, groups, head_dim = k.shape
        window, filled = self._field("window", int), self._field("filled", list[int])
        self._check(
            (k.shape, k.dtype) == (v.shape, v.dtype), "k and v differ in shape or precision"
        )
        self._check(
            (worlds, history) == (self.worlds, sampler.history),
            f"k is of {worlds} worlds and {history} chunks, not of {self.worlds} and "
            f"{sampler.history}",
        )
        right = sampler.window_size + extra_chunks(sampler)
        self._check(window == right, f"window is {window}, not {right}")
        self._check(
            len(filled) == worlds and all(0 <= n <= history for n in filled), f"filled is {filled}"
        )
        config = CacheConfig(
            layers, worlds, history, window, tokens, groups, head_dim, k.dtype, torch.device("cpu")
        )
        return KeyValueCache.from_clean(config, filled, k, v)

    def _tensor(self, name: str, axes: int, dtype: torch.dtype | None = None) -> Tensor:
        self._check(name in self.tensors, f"the tensor {name} is missing")
        tensor = self.tensors[name]
        self._check(
            tensor.ndim == axes and (dtype is None or tensor.dtype == dtype),
            f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}; it must have {axes} axes"
            + ("" if dtype is None else f" of {dtype}"),
        )
        self._check(
            tensor.is_floating_point() and bool(torch.isfinite(tensor).all()),
            f"{name} holds NaN, infinity or no floating-point numbers",
        )
        return tensor

    def _field(self, name: str, kind: Any) -> Any:
        return field_of(self.record, name, kind, self.where)

    def _check(self, right: bool, message: str) -> None:
        if not right:
            raise ValueError(f"{self.where}: {message}")


def row_of(snapshot: Snapshot, row: int) -> Snapshot:
    """One world of a snapshot, as a copy that keeps none of the others in memory.

    Raises:
        ValueError: there is no such world.
    """
    count = snapshot.num_worlds
    require(0 <= row < count, f"the snapshot holds {count} worlds; there is no world {row}")
    return replace(snapshot, state=snapshot.state.select([row]), prompts=(snapshot.prompts[row],))


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
    return replace(
        first,
        state=StreamState.joined([snapshot.state for snapshot in snapshots]),
        prompts=tuple(prompt for snapshot in snapshots for prompt in snapshot.prompts),
    )
