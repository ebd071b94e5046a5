"""Tensor files as they lie on disk: what is in them, read from headers, and the tensors themselves.

One reader for the four layouts in which released weights come: a single safetensors file, shards
with an ``index.json``, either of them zstd-compressed (``.zst`` beside the expected name), and
``pytorch_model.bin`` pickles (read with ``weights_only``, so nothing in them is executed).
"""

from __future__ import annotations

import json
import math
import pickle
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_MAX_HEADER = 100_000_000
# A folder's tensors start from the first of these that is there.
_PATTERNS = (
    "*.safetensors.index.json",
    "*.safetensors",
    "*.safetensors.zst",
    "*.bin.index.json",
    "*.bin",
)


class WeightsError(ValueError):
    """A weights file is damaged, incomplete, or not of the model it is meant for."""


@dataclass(frozen=True)
class TensorInfo:
    """One stored tensor, as its file's header describes it."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    file: Path

    @property
    def nbytes(self) -> int:
        """Size of the stored tensor in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def inspect_checkpoint(source: str | Path) -> dict[str, TensorInfo]:
    """Name, dtype, shape and file of every tensor of a checkpoint, from headers alone.

    Args:
        source: a tensor file (``.safetensors``, ``.safetensors.zst``, ``.bin``), an
            ``.index.json``, or a folder that holds one of these.

    Raises:
        FileNotFoundError: there is no such file, or no tensor file in the folder.
        WeightsError: a file is damaged or truncated, or a shard that the index names is missing.
        ImportError: a file is zstd-compressed and zstandard is not installed.
    """
    file = checkpoint_file(source)
    if file.suffix != ".json":
        return _inspect_file(file)
    infos: dict[str, TensorInfo] = {}
    wanted: dict[Path, set[str]] = {}
    for name, shard in _shards(file).items():
        wanted.setdefault(shard, set()).add(name)
    for shard, names in wanted.items():
        found = _inspect_file(shard)
        absent = sorted(names - found.keys())
        if absent:
            raise WeightsError(
                f"{shard}: the index {file.name} says that {absent[0]} is in it"
                f"{f' (and {len(absent) - 1} more)' if absent[1:] else ''}, but it is not"
            )
        infos |= found
    return infos


def checkpoint_file(source: str | Path) -> Path:
    """The index or tensor file that ``source`` means; a folder must hold exactly one.

    Raises:
        FileNotFoundError: nothing there, with what was looked for.
        WeightsError: several files and no index.
    """
    source = Path(source)
    if source.is_file():
        return source
    if not source.is_dir():
        packed = source.with_name(source.name + ".zst")
        if packed.is_file():
            return packed
        raise FileNotFoundError(f"no weights at {source}")
    for pattern in _PATTERNS:
        found = sorted(source.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            raise WeightsError(
                f"{source} holds {len(found)} files {pattern} ({found[0].name}, ...); name one of "
                "them, or put the index.json of these shards beside them"
            )
    raise FileNotFoundError(f"no weights in {source}; looked for {', '.join(_PATTERNS)}")


def read_tensors(
    file: Path, names: Collection[str], device: str | torch.device = "cpu"
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors ``names`` of one file, in the order in which they are stored.

    Plain files are memory-mapped and go to ``device`` one at a time; a ``.zst`` file is unpacked
    as a stream, never whole, and to no other file.

    Raises:
        WeightsError: the file is damaged.
    """
    if file.suffix == ".zst":
        yield from _read_packed(file, names, device)
    elif file.suffix == ".bin":
        for name, value in _load_bin(file, "cpu").items():
            if name in names:
                yield name, value.to(device)
    else:
        ordered = [name for name in _inspect_file(file) if name in names]
        try:
            with safe_open(file, framework="pt", device=str(device)) as opened:
                for name in ordered:
                    yield name, opened.get_tensor(name)
        except SafetensorError as error:
            raise WeightsError(f"{file} is damaged: {error}") from error


def _shards(index: Path) -> dict[str, Path]:
    """Tensor name -> file, from an index; each shard must be there, plain or compressed."""
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        names = {str(k): Path(v).name for k, v in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{index} is not an index of shards: a 'weight_map' (name to file) is expected"
        ) from error
    files: dict[str, Path] = {}
    for shard in sorted(set(names.values())):
        plain, packed = index.with_name(shard), index.with_name(shard + ".zst")
        if plain.is_file():
            files[shard] = plain
        elif packed.is_file():
            files[shard] = packed
    lost = sorted(set(names.values()) - files.keys())
    if lost:
        raise WeightsError(
            f"{index.parent}: {len(lost)} of {len(set(names.values()))} shards are missing: "
            f"{', '.join(lost[:3])}{', ...' if lost[3:] else ''} (neither plain nor .zst)"
        )
    return {name: files[shard] for name, shard in names.items()}


def _inspect_file(file: Path) -> dict[str, TensorInfo]:
    if file.suffix == ".bin":
        state = _load_bin(file, "meta")
        return {n: TensorInfo(v.dtype, tuple(v.shape), file) for n, v in state.items()}
    if file.suffix == ".zst":
        with _unpacking(file) as stream:
            return _read_header(stream, file)[0]
    with file.open("rb") as stream:
        infos, end = _read_header(stream, file)
    size = file.stat().st_size
    if size != end:
        state_of = "truncated" if size < end else "damaged"
        raise WeightsError(f"{file} is {state_of}: it has {size:,} bytes, its header says {end:,}")
    return infos


def _read_header(stream: IO[bytes], file: Path) -> tuple[dict[str, TensorInfo], int]:
    """Tensors of a safetensors stream in stored order, and the length that the file must have."""
    length = int.from_bytes(_read_exactly(stream, 8, file), "little")
    if not 2 <= length <= _MAX_HEADER:
        raise WeightsError(f"{file} is not a safetensors file: its header length is {length}")
    raw = bytes(_read_exactly(stream, length, file))
    infos, position = {}, 0
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        for name in sorted(header, key=lambda n: header[n]["data_offsets"]):
            entry = header[name]
            start, end = entry["data_offsets"]
            info = TensorInfo(_DTYPES[entry["dtype"]], tuple(entry["shape"]), file)
            if start != position or end - start != info.nbytes:
                raise WeightsError(f"{file} is damaged: {name} lies at bytes {start} to {end}")
            infos[name], position = info, end
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise WeightsError(f"{file} is damaged: its header cannot be read ({error!r})") from error
    return infos, 8 + length + position


def _read_exactly(stream: IO[bytes], count: int, file: Path) -> bytearray:
    buffer = bytearray(count)
    view, done = memoryview(buffer), 0
    while done < count:
        got = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not got:
            raise WeightsError(f"{file} is truncated: it ends {count - done:,} bytes early")
        done += got
    return buffer


class _unpacking:
    """Context of a zstd stream whose faults are reported as those of its file."""

    def __init__(self, file: Path) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise ImportError(
                f"{file} is zstd-compressed: pip install 'magi-world[magi1]' (or zstandard), or "
                f"unpack it beside itself with: zstd -d {file.name}"
            ) from error
        self.file = file
        self.fault = zstandard.ZstdError
        self.stream = zstandard.ZstdDecompressor().stream_reader(
            file.open("rb"), read_across_frames=True, closefd=True
        )

    def __enter__(self) -> IO[bytes]:
        return self.stream

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.stream.close()
        if isinstance(error, self.fault):
            raise WeightsError(f"{self.file} is damaged: {error}") from error


def _read_packed(
    file: Path, names: Collection[str], device: str | torch.device
) -> Iterator[tuple[str, Tensor]]:
    with _unpacking(file) as stream:
        for name, info in _read_header(stream, file)[0].items():
            buffer = _read_exactly(stream, info.nbytes, file)
            if name in names:
                flat = torch.frombuffer(buffer or bytearray(1), dtype=torch.uint8)[: info.nbytes]
                yield name, flat.view(info.dtype).view(info.shape).to(device)
        # The checksum of the last frame is only looked at when the end is read.
        if stream.read(1):
            raise WeightsError(f"{file} is damaged: there is more in it than its header says")


def _load_bin(file: Path, location: str) -> dict[str, Tensor]:
    faults = (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError)
    try:
        mmap = zipfile.is_zipfile(file)  # pickles older than torch 1.6 cannot be mapped
        state = torch.load(file, map_location=location, mmap=mmap, weights_only=True)
    except faults as error:
        first = str(error).splitlines()[0] if str(error) else repr(error)
        raise WeightsError(
            f"{file} is damaged or is not a file of plain tensors: {first}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{file} does not hold a plain table of name to tensor")
    return state
