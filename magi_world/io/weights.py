"""Strict loading of tensors into modules, and atomic saving.

A module is built under ``torch.device("meta")``, every name and shape is compared with the file
headers, and only then are tensors read, each straight to its device and precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from magi_world.io.checkpoint import (
    TensorInfo,
    WeightsError,
    checkpoint_file,
    inspect_checkpoint,
    read_tensors,
)
from magi_world.io.files import replacing

M = TypeVar("M", bound=nn.Module)
DtypeOf = Callable[[str, TensorInfo], torch.dtype]
Progress = Callable[[int, int], None]
_SHOWN = 4


def load_into(
    module: M,
    source: str | Path,
    device: str | torch.device = "cpu",
    dtype_of: DtypeOf | None = None,
    progress: bool | Progress = False,
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
        progress: True shows a bar; or a function of (bytes done, bytes in all).
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
    files: dict[Path, list[str]] = {}
    for name, info in stored.items():
        files.setdefault(info.file, []).append(name)
    tensors: dict[str, Tensor] = {}
    total, done = sum(i.nbytes for i in stored.values()), 0
    with tqdm(
        total=total, desc=where.name, unit="B", unit_scale=True, disable=progress is not True
    ) as bar:
        for file, names in files.items():
            for name, value in read_tensors(file, set(names), device):
                info = stored[name]
                if dtype_of is not None and info.dtype.is_floating_point:
                    value = value.to(dtype_of(name, info))
                tensors[name] = value
                done += info.nbytes
                bar.update(info.nbytes)
                if callable(progress):
                    progress(done, total)
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
    path: str | Path, prefix: str | None = None, device: str | torch.device = "cpu"
) -> dict[str, Tensor]:
    """The tensors of one safetensors file.

    Args:
        path: the file.
        prefix: only names that begin with it, and without it; None = all.
        device: where they go; on the CPU they are views of the memory-mapped file.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: the file is damaged or truncated.
    """
    file = _existing(path)
    start = prefix or ""
    names = [name for name in inspect_checkpoint(file) if name.startswith(start)]
    return {name[len(start) :]: value for name, value in read_tensors(file, set(names), device)}


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
