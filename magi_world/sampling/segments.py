"""Segments of a long history: runs of clean chunks on the card, in the host's memory or in a file.

Shapes: Ly layers, G chunks of a segment, S tokens a chunk, Hkv key/value groups, hd head dim.

A segment is filled from the front and never changed; so several histories may share one, each with
its own idea of how far it goes. Whoever comes too late to append begins a segment of his own.
"""

from __future__ import annotations

import mmap
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

_PAGE = mmap.ALLOCATIONGRANULARITY


@dataclass(frozen=True)
class SegmentConfig:
    """Size of a segment, and the device on which it is read."""

    layers: int
    chunks: int
    tokens: int
    kv_groups: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def layer_shape(self) -> tuple[int, ...]:
        """(2, G, S, Hkv, hd) of a layer: keys, then values."""
        return (2, self.chunks, self.tokens, self.kv_groups, self.head_dim)

    @property
    def layer_bytes(self) -> int:
        """Memory of a layer."""
        return torch.Size(self.layer_shape).numel() * self.dtype.itemsize

    @property
    def chunk_bytes(self) -> int:
        """Memory of a chunk, all layers."""
        return self.layers * self.layer_bytes // self.chunks


class Segment:
    """Some memory. ``written``: chunks that have been appended by anybody."""

    def __init__(self, config: SegmentConfig, layers: list[Tensor]) -> None:
        """layers: per layer (2, G, S, Hkv, hd)."""
        self.config, self.layers, self.written = config, layers, 0

    def append(self, k: Tensor, v: Tensor) -> int:
        """Add a chunk k, v (Ly, S, Hkv, hd); its place."""
        place, self.written = self.written, self.written + 1
        for layer, memory in enumerate(self.layers):
            memory[0, place], memory[1, place] = k[layer], v[layer]
        return place

    def ahead(self, layer: int) -> None:
        """Say that this layer is read next."""

    def read(self, layer: int, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Keys and values, each (count, S, Hkv, hd), on the device where they are used."""
        memory = self.layers[layer]
        return memory[0, first : first + count], memory[1, first : first + count]

    def done(self, layer: int) -> None:
        """Say that what `read` gave is not used any more."""


class PinnedSegment(Segment):
    """In the host's memory; a layer is copied to the card while the one before is computed."""

    def __init__(self, config: SegmentConfig) -> None:
        on_card = config.device.type == "cuda"
        memory = torch.zeros(
            (config.layers, *config.layer_shape), dtype=config.dtype, pin_memory=on_card
        )
        super().__init__(config, list(memory))
        self._coming: dict[int, tuple[Tensor, torch.cuda.Event]] = {}

    def ahead(self, layer: int) -> None:
        """Begin to copy the layer."""
        if self.config.device.type == "cuda" and layer not in self._coming:
            with torch.cuda.stream(_copy_stream(self.config.device)):
                copy = self.layers[layer].to(self.config.device, non_blocking=True)
                event = torch.cuda.Event()
                event.record()
            self._coming[layer] = copy, event

    def read(self, layer: int, first: int, count: int) -> tuple[Tensor, Tensor]:
        if self.config.device.type != "cuda":
            return super().read(layer, first, count)
        self.ahead(layer)
        copy, event = self._coming[layer]
        current = torch.cuda.current_stream(self.config.device)
        current.wait_event(event)
        copy.record_stream(current)
        return copy[0, first : first + count], copy[1, first : first + count]

    def done(self, layer: int) -> None:
        """Give the copy back."""
        self._coming.pop(layer, None)


class MappedSegment(Segment):
    """A piece of a file. Of it only what is read at the moment is in the process's memory."""

    def __init__(self, config: SegmentConfig, memory: mmap.mmap) -> None:
        self.memory, self.stride = memory, _whole_pages(config.layer_bytes)
        numbers = torch.Size(config.layer_shape).numel()
        layers = [
            torch.frombuffer(memory, dtype=config.dtype, count=numbers, offset=i * self.stride)
            for i in range(config.layers)
        ]
        super().__init__(config, [layer.view(config.layer_shape) for layer in layers])

    def append(self, k: Tensor, v: Tensor) -> int:
        place = super().append(k, v)
        for layer in range(self.config.layers):
            self.done(layer)
        return place

    def ahead(self, layer: int) -> None:
        """Let the system begin to read the layer from the disk."""
        self.memory.madvise(mmap.MADV_WILLNEED, layer * self.stride, self.stride)

    def read(self, layer: int, first: int, count: int) -> tuple[Tensor, Tensor]:
        k, v = super().read(layer, first, count)
        return k.to(self.config.device), v.to(self.config.device)

    def done(self, layer: int) -> None:
        """Let the layer's pages go; the file has them."""
        self.memory.madvise(mmap.MADV_DONTNEED, layer * self.stride, self.stride)


class Place(Protocol):
    """Where segments are made."""

    name: str

    def new(self, config: SegmentConfig) -> Segment:
        """An empty one."""

    def free_bytes(self, device: torch.device) -> int:
        """How much it can still hold."""


class Card:
    """The memory of the device that computes."""

    name = "card"

    def new(self, config: SegmentConfig) -> Segment:
        memory = torch.zeros(
            (config.layers, *config.layer_shape), dtype=config.dtype, device=config.device
        )
        return Segment(config, list(memory))

    def free_bytes(self, device: torch.device) -> int:
        """Of the card, or of the host where that computes."""
        return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else host_bytes()


class Host:
    """The host's memory, pinned where there is a card."""

    name = "host"

    def new(self, config: SegmentConfig) -> Segment:
        return PinnedSegment(config)

    def free_bytes(self, device: torch.device) -> int:
        return host_bytes()


class MappedFile:
    """A file without a name in a folder: it goes with the process, however that ends."""

    def __init__(self, folder: Path) -> None:
        """Raises:
        ValueError: no such folder.
        """
        if not folder.is_dir():
            raise ValueError(f"history_place is {str(folder)!r}; there is no such folder")
        self.folder, self.name = folder, str(folder)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as this
        self._slots = 0
        self._free: list[int] = []

    def new(self, config: SegmentConfig) -> Segment:
        """An empty one, where an old one was or at the end of the file."""
        length = config.layers * _whole_pages(config.layer_bytes)
        if self._free:
            slot = self._free.pop()
        else:
            slot, self._slots = self._slots, self._slots + 1
            self._file.truncate(self._slots * length)
        memory = mmap.mmap(self._file.fileno(), length, offset=slot * length)
        segment = MappedSegment(config, memory)
        weakref.finalize(segment, self._free.append, slot).atexit = False
        return segment

    def free_bytes(self, device: torch.device) -> int:
        return shutil.disk_usage(self.folder).free


def host_bytes() -> int:
    """Memory of this machine that is free, or can be freed at once."""
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 2**62  # the system does not tell


def _whole_pages(count: int) -> int:
    return -(-count // _PAGE) * _PAGE


def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    if device not in _STREAMS:
        _STREAMS[device] = torch.cuda.Stream(device)
    return _STREAMS[device]


# One stream a card for copies that go on beside the computing.
_STREAMS: dict[torch.device, torch.cuda.Stream] = {}
