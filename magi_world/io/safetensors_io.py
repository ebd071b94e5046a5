"""Tensor files: what is in them, strict loading into modules, and atomic saving.

One reader for the four layouts in which released weights come: a single safetensors file, shards
with an ``index.json``, either of them zstd-compressed (``.zst`` beside the expected name), and
``pytorch_model.bin`` pickles (read with ``weights_only``, so nothing in them is executed).

A module is built under ``torch.device("meta")``, every name and shape is compared with the file
headers, and only then are tensors read, each straight to its device and precision.
"""

from __future__ import annotations

import json
import math
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from magi_world.io.files import replacing

M = TypeVar("M", bound=nn.Module)
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
_SHOWN = 4


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


def load_into(
    module: M,
    source: str | Path,
    device: str | torch.device = "cpu",
    dtype_of: Callable[[str, TensorInfo], torch.dtype] | None = None,
    progress: bool = False,
    ignore: tuple[str, ...] = (),
    stored_name: Callable[[str], str] | None = None,
) -> M:
    """Fill a module that lives on the meta device from a checkpoint, strictly.

    Names, shapes and fp8-ness of all tensors are compared with the headers before anything is
    allocated. Plain files are memory-mapped: on the CPU, a tensor that keeps its dtype stays a
    view of the file.

    Args:
        module: built under ``torch.device("meta")``; its state dict says what must be there.
        source: see :func:`inspect_checkpoint`.
        device: where the tensors go.
        dtype_of: (name, stored tensor) -> precision to hold it in; None keeps the stored one.
            Not asked for integer tensors, which always stay as stored.
        progress: True shows a bar.
        ignore: prefixes of stored names that the module does not want.
        stored_name: name in the module -> name in the file, where they differ; two names of the
            module may share one stored tensor.

    Returns:
        The same module.

    Raises:
        WeightsError: missing, extra or wrongly shaped tensors, or a damaged file.
        FileNotFoundError: no weights there.
    """
    where = checkpoint_file(source)
    stored = {n: i for n, i in inspect_checkpoint(where).items() if not n.startswith(ignore)}
    state = module.state_dict()
    sources = {name: stored_name(name) if stored_name else name for name in state}
    expected = {sources[name]: value for name, value in state.items()}
    problems = differences(expected, stored)
    if problems:
        raise WeightsError(f"{where} does not fit {type(module).__name__}: " + "; ".join(problems))
    files: dict[Path, set[str]] = {}
    for name, info in stored.items():
        files.setdefault(info.file, set()).add(name)
    tensors: dict[str, Tensor] = {}
    total = sum(info.nbytes for info in stored.values())
    with tqdm(total=total, desc=where.name, unit="B", unit_scale=True, disable=not progress) as bar:
        for file, names in files.items():
            for name, value in read_tensors(file, names.__contains__, device):
                info = stored[name]
                if dtype_of is not None and info.dtype.is_floating_point:
                    value = value.to(dtype_of(name, info))
                tensors[name] = value
                bar.update(info.nbytes)
    module.load_state_dict({n: tensors[s] for n, s in sources.items()}, strict=True, assign=True)
    left = [n for n, b in module.named_buffers() if b.is_meta]
    if left:
        raise RuntimeError(
            f"{type(module).__name__} has buffers that no checkpoint fills, such as {left[0]}; "
            "they must be computed, not registered, in a module that is built on the meta device"
        )
    return module


def differences(expected: Mapping[str, Tensor], stored: Mapping[str, TensorInfo]) -> list[str]:
    """What keeps ``stored`` from being loaded as ``expected``: a few phrases, [] if it fits.

    Args:
        expected: name -> tensor (meta will do) with the right shape; float8 where fp8 is wanted.
        stored: as :func:`inspect_checkpoint` gives it.
    """
    shapes, precisions = [], []
    for name in expected.keys() & stored.keys():
        want, info = expected[name], stored[name]
        if tuple(want.shape) != info.shape:
            shapes.append(f"{name} {list(info.shape)} instead of {list(want.shape)}")
        elif _kind(want.dtype) != _kind(info.dtype):
            precisions.append(f"{name} {info.dtype} instead of {want.dtype}")
    found = {
        "missing": list(expected.keys() - stored.keys()),
        "extra": list(stored.keys() - expected.keys()),
        "wrong shape": shapes,
        "wrong dtype": precisions,
    }
    return [_few(kind, sorted(names)) for kind, names in found.items() if names]


def _kind(dtype: torch.dtype) -> torch.dtype:
    """Dtypes that may be loaded as one another: every float wider than fp8."""
    return torch.float32 if dtype.is_floating_point and dtype.itemsize > 1 else dtype


def _few(kind: str, names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) + (", ..." if names[_SHOWN:] else "")
    return f"{len(names)} {kind}: {shown}"


def find_nan(module: nn.Module) -> str | None:
    """Name of the first parameter or buffer that holds a NaN or an infinity, or None.

    Meant for the moment when an output is not finite: it says which weight is to blame.
    """
    for name, value in module.state_dict().items():
        if not value.is_floating_point():
            continue
        # float8 has no isfinite; bfloat16 holds all of its values, NaN included.
        wide = value.to(torch.bfloat16) if value.dtype.itemsize == 1 else value
        if not torch.isfinite(wide).all():
            return name
    return None


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file that is either whole or not there.

    Args:
        path: the file; what was there before is replaced at the last moment.
        tensors: on any device; those that share memory are written out separately.
        metadata: strings kept in the header.
    """
    path = Path(path)
    ready: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in tensors.items():
        value = value.detach().cpu().contiguous()
        start = value.untyped_storage().data_ptr()
        ready[name] = value.clone() if start in seen else value
        seen.add(start)
    with replacing(path) as part:
        try:
            save_file(ready, part, dict(metadata) if metadata else None)
        except SafetensorError as error:  # how it tells of a full disk
            raise OSError(f"{path} cannot be written: {error}") from error


def load_tensors(
    path: str | Path, prefix: str = "", device: str | torch.device = "cpu"
) -> dict[str, Tensor]:
    """The tensors of one safetensors file.

    Args:
        path: the file.
        prefix: only names that begin with it, and without it.
        device: where they go; on the CPU they are views of the memory-mapped file.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: the file is damaged or truncated.
    """
    found = read_tensors(_existing(path), lambda name: name.startswith(prefix), device)
    return {name[len(prefix) :]: value for name, value in found}


def read_metadata(path: str | Path) -> dict[str, str]:
    """The strings that :func:`save_tensors` put into a file's header.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: the file is damaged or truncated.
    """
    file = _existing(path)
    inspect_checkpoint(file)  # names the file where safetensors would only say what is wrong
    with safe_open(file, framework="pt") as opened:
        return opened.metadata() or {}


def _existing(path: str | Path) -> Path:
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}")
    return file


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
    for shard, names in _shards(file).items():
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
    file: Path, wanted: Callable[[str], bool], device: str | torch.device = "cpu"
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of one file whose names are ``wanted``, in the order of storage.

    Plain files are memory-mapped and go to ``device`` one at a time; a ``.zst`` file is unpacked
    as a stream, never whole, and to no other file.

    Raises:
        WeightsError: the file is damaged.
    """
    if file.suffix == ".zst":
        yield from _read_packed(file, wanted, device)
    elif file.suffix == ".bin":
        for name, value in _load_bin(file, "cpu").items():
            if wanted(name):
                yield name, value.to(device)
    else:
        ordered = [name for name in _inspect_file(file) if wanted(name)]
        try:
            with safe_open(file, framework="pt", device=str(device)) as opened:
                for name in ordered:
                    yield name, opened.get_tensor(name)
        except SafetensorError as error:
            raise WeightsError(f"{file} is damaged: {error}") from error


def _shards(index: Path) -> dict[Path, set[str]]:
    """File -> its tensors, from an index; each shard must be there, plain or compressed."""
    names: dict[str, set[str]] = {}
    try:
        for name, shard in json.loads(index.read_text())["weight_map"].items():
            names.setdefault(Path(shard).name, set()).add(name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{index} is not an index of shards: a 'weight_map' (name to file) is expected"
        ) from error
    files: dict[Path, set[str]] = {}
    lost = []
    for shard, inside in sorted(names.items()):
        plain, packed = index.with_name(shard), index.with_name(shard + ".zst")
        if plain.is_file() or packed.is_file():
            files[plain if plain.is_file() else packed] = inside
        else:
            lost.append(shard)
    if lost:
        raise WeightsError(
            f"{index.parent}: {len(lost)} of {len(names)} shards are missing: "
            f"{', '.join(lost[:3])}{', ...' if lost[3:] else ''} (neither plain nor .zst)"
        )
    return files


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


@contextmanager
def _unpacking(file: Path) -> Iterator[IO[bytes]]:
    """A zstd stream whose faults are reported as those of its file."""
    try:
        from zstandard import ZstdDecompressor, ZstdError
    except ImportError as error:
        raise ImportError(
            f"{file} is zstd-compressed: pip install 'magi-world[magi1]' (or zstandard), or "
            f"unpack it beside itself with: zstd -d {file.name}"
        ) from error
    with ZstdDecompressor().stream_reader(file.open("rb"), read_across_frames=True) as stream:
        try:
            yield stream
        except ZstdError as error:
            raise WeightsError(f"{file} is damaged: {error}") from error


def _read_packed(
    file: Path, wanted: Callable[[str], bool], device: str | torch.device
) -> Iterator[tuple[str, Tensor]]:
    with _unpacking(file) as stream:
        for name, info in _read_header(stream, file)[0].items():
            buffer = _read_exactly(stream, info.nbytes, file)
            if wanted(name):
                flat = torch.frombuffer(buffer or bytearray(1), dtype=torch.uint8)[: info.nbytes]
                yield name, flat.view(info.dtype).view(info.shape).to(device)
        # The checksum of the last frame is only looked at when the end is read.
        if stream.read(1):
            raise WeightsError(f"{file} is damaged: there is more in it than its header says")


def _load_bin(file: Path, location: str) -> dict[str, Tensor]:
    try:
        mmap = zipfile.is_zipfile(file)  # pickles older than torch 1.6 cannot be mapped
        state = torch.load(file, map_location=location, mmap=mmap, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else repr(error)
        raise WeightsError(
            f"{file} is damaged or is not a file of plain tensors: {first}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{file} does not hold a plain table of name to tensor")
    return state
