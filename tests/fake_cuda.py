"""The package's own code on CUDA tensors that hold no numbers, on a machine without a card.

`FakeTensorMode` follows shapes, dtypes and devices through every operation and refuses what mixes
devices. What a build without CUDA cannot even do with such tensors (Python indexing, which asks for
the device's guard; pinned memory) is put in its place here. `Traffic` counts what costs time on a
card and is invisible elsewhere: copies between host and device, and waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from magi_world.config import DiTConfig, VAEConfig
from magi_world.model.dit import DiT, parameter_dtype
from magi_world.model.vae import VAE
from magi_world.world.parts import WorldParts

_READS = (Tensor.__bool__, Tensor.item, Tensor.__float__, Tensor.__int__, Tensor.tolist)
_WAITING = ("nonzero", "_local_scalar_dense", "masked_select", "equal")


@dataclass
class Traffic:
    """What happened since `clear`: every list has a line for each event.

    uploads, downloads: copies from and to the host.    waits: for the device to finish.
    operations: all of them, by name.
    """

    uploads: list[str] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)

    def clear(self) -> None:
        """Forget everything."""
        for events in (self.uploads, self.downloads, self.waits, self.operations):
            events.clear()


class _Log(TorchDispatchMode):
    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self.traffic, self.pinned = traffic, set[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        out = func(*args, **kwargs)
        if name in ("device", "sym_size", "detach", "alias"):
            return out
        self.traffic.operations.append(name)
        tensors = [a for a in args if isinstance(a, Tensor)]
        if name in ("_to_copy", "to") and tensors:  # "to" in inference mode
            self.copy(tensors[0], out, bool(kwargs.get("non_blocking")), name)
        elif name in _WAITING and any(t.device.type == "cuda" for t in tensors):
            self.traffic.waits.append(name)
        elif name in ("index", "index_put", "index_put_", "_unsafe_index"):
            for index in args[1]:
                if index is not None and index.device.type == "cpu" and tensors[0].is_cuda:
                    self.copy(index, tensors[0], False, f"{name} by a list")
                if index is not None and index.dtype == torch.bool:
                    self.traffic.waits.append(f"{name} by a mask")
        return out

    def copy(self, source: Tensor, target: Tensor, asynchronous: bool, name: str) -> None:
        ways = (source.device.type, target.device.type)
        event = f"{name} {tuple(source.shape)} {source.dtype}"
        if ways == ("cpu", "cuda"):
            self.traffic.uploads.append(event)
            if not (asynchronous and id(source) in self.pinned):
                self.traffic.waits.append(event)
        elif ways == ("cuda", "cpu"):
            self.traffic.downloads.append(event)
            self.traffic.waits.append(event)


class _Replacements(TorchFunctionMode):
    """Indexing by the operations that it stands for, and answers to questions about numbers."""

    def __init__(self, log: _Log) -> None:
        super().__init__()
        self.log, self.kept = log, list[Tensor]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.__getitem__:
            return picked(args[0], args[1])
        if func is Tensor.__setitem__:
            return self.put(*args)
        if func is F.interpolate:  # torch follows its shapes by indexing
            return args[0].new_empty((*args[0].shape[:2], *kwargs["size"]))
        if func is Tensor.contiguous and not args[0].is_contiguous():
            return args[0].clone(memory_format=torch.contiguous_format)
        if func is Tensor.copy_:
            return self.write(*args, **kwargs)
        if func is Tensor.pin_memory:
            copy = torch.empty_like(args[0])
            self.log.pinned.add(id(copy))
            self.kept.append(copy)  # so that nobody else gets its id
            return copy
        if func in _READS and args[0].device.type == "cuda":
            self.log.traffic.waits.append(func.__name__)
            return True
        return func(*args, **kwargs)

    def write(self, x: Tensor, value: Tensor, non_blocking: bool = False) -> Tensor:
        """``x.copy_(value)``, of which nothing is left but what it is allowed to be."""
        value.expand(x.shape)
        self.log.copy(value, x, non_blocking, "copy_")
        return x

    def put(self, x: Tensor, index: Any, value: Any) -> None:
        """``x[index] = value``."""
        view, advanced = _views(x, index)
        if any(a is not None for a in advanced):
            value = value if isinstance(value, Tensor) else torch.tensor(value)
            torch.ops.aten.index_put.default(view, advanced, value)
        elif isinstance(value, Tensor):
            self.write(view, value)
        else:
            view.fill_(value)


def _items(x: Tensor, index: Any) -> list[Any]:
    items = list(index) if isinstance(index, tuple) else [index]
    if any(i is Ellipsis for i in items):
        at = next(n for n, i in enumerate(items) if i is Ellipsis)
        used = sum(i is not None for i in items) - 1
        items[at : at + 1] = [slice(None)] * (x.dim() - used)
    return items


def _views(x: Tensor, index: Any) -> tuple[Tensor, list[Tensor | None]]:
    """The view that the plain parts of an index select, and its advanced parts by axis."""
    axis, advanced = 0, []
    for item in _items(x, index):
        if item is None:
            x = x.unsqueeze(axis)
            advanced.append(None)
            axis += 1
        elif isinstance(item, bool):
            raise NotImplementedError("indexing by a bool")
        elif isinstance(item, int):
            x = x.select(axis, item)
        elif isinstance(item, slice):
            start, stop, step = item.indices(x.shape[axis])
            x = torch.ops.aten.slice.Tensor(x, axis, start, max(start, stop), step)
            advanced.append(None)
            axis += 1
        else:
            advanced.append(item if isinstance(item, Tensor) else torch.tensor(list(item)))
            axis += 1
    return x, advanced


def picked(x: Tensor, index: Any) -> Tensor:
    """``x[index]``."""
    view, advanced = _views(x, index)
    if all(a is None for a in advanced):
        return view
    return torch.ops.aten.index.Tensor(view, advanced)


@contextmanager
def fake_cuda() -> Iterator[Traffic]:
    """Everything inside runs on tensors without numbers, CUDA ones included."""
    log = _Log(Traffic())
    with FakeTensorMode(allow_non_fake_inputs=True), log, _Replacements(log):
        yield log.traffic


def _empty(module: nn.Module, dtype_of: Callable[[str, torch.dtype], torch.dtype]) -> nn.Module:
    """A module on "meta", filled with CUDA tensors."""
    state = {
        name: torch.empty(value.shape, dtype=dtype_of(name, value.dtype), device="cuda")
        for name, value in module.state_dict().items()
    }
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def cuda_dit(config: DiTConfig, dtype: torch.dtype = torch.bfloat16) -> DiT:
    """A transformer on the card; inside `fake_cuda`."""
    with torch.device("meta"):
        dit = DiT(config)
    _empty(dit, lambda name, stored: parameter_dtype(name, stored, dtype))
    return dit


def cuda_vae(config: VAEConfig, dtype: torch.dtype = torch.bfloat16) -> VAE:
    """An autoencoder on the card; inside `fake_cuda`."""
    with torch.device("meta"):
        vae = VAE(config)
    _empty(vae, lambda name, stored: dtype)
    return vae


def cuda_parts(
    parts: WorldParts, dtype: torch.dtype = torch.bfloat16, fp8: bool = False
) -> WorldParts:
    """The same on the card; of three layers fp8 quantises one. Inside `fake_cuda`.

    ``parts`` (of `tests.tiny.tiny_parts`) are made outside, where random numbers can be drawn.
    """
    sizes = replace(parts.config.dit, layers=3 if fp8 else 2, fp8=fp8)
    config = replace(parts.config, dit=sizes, dtype=str(dtype).removeprefix("torch."))
    starts = None if parts.starts is None else torch.empty_like(parts.starts)
    dit, vae = cuda_dit(sizes, dtype), cuda_vae(config.vae, dtype)
    return replace(parts, config=config, dit=dit, vae=vae, starts=starts)
