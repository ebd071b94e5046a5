"""One small module in every layout that a checkpoint may have."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from magi_world.io.safetensors_io import save_tensors
from tests.checkpoints import pack, write_shards


class Net(nn.Module):
    """A module with everything that matters: floats, fp8, an integer buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 2, bias=False)
        self.packed = nn.Parameter(torch.zeros(1, 4, 4, dtype=torch.float8_e4m3fn), False)
        self.register_buffer("count", torch.zeros(2, dtype=torch.int64))


def tensors() -> dict[str, Tensor]:
    gen = torch.Generator().manual_seed(0)
    return {
        "first.weight": torch.randn(4, 3, generator=gen),
        "first.bias": torch.randn(4, generator=gen),
        "second.weight": torch.randn(2, 4, generator=gen).bfloat16(),
        "packed": torch.randn(1, 4, 4, generator=gen).to(torch.float8_e4m3fn),
        "count": torch.tensor([3, 1 << 40]),
    }


def meta() -> Net:
    with torch.device("meta"):
        return Net()


def single(folder: Path) -> Path:
    save_tensors(folder / "model.safetensors", tensors())
    return folder


def sharded(folder: Path) -> Path:
    write_shards(folder, tensors())
    return folder


def packed_single(folder: Path) -> Path:
    pack(single(folder) / "model.safetensors")
    return folder


def packed_shard(folder: Path) -> Path:
    pack(sharded(folder) / "model-00002-of-00002.safetensors")
    return folder


def pickled(folder: Path) -> Path:
    torch.save(tensors(), folder / "pytorch_model.bin")
    return folder


def file_itself(folder: Path) -> Path:
    return single(folder) / "model.safetensors"


LAYOUTS = (single, sharded, packed_single, packed_shard, pickled, file_itself)
