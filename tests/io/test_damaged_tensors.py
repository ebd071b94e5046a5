"""Damaged, incomplete and foreign files: each is refused by name, unread."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from magi_world.io.safetensors_io import (
    WeightsError,
    inspect_checkpoint,
    load_into,
    load_tensors,
    read_metadata,
)
from tests.checkpoints import pack
from tests.layouts import (
    file_itself,
    meta,
    packed_shard,
    packed_single,
    pickled,
    sharded,
    single,
)


@pytest.mark.parametrize("keep", [0, 5, 40, -12])
@pytest.mark.parametrize("layout", [single, packed_single, pickled, sharded, packed_shard])
def test_truncated_files_are_named(
    layout: Callable[[Path], Path], keep: int, tmp_path: Path
) -> None:
    layout(tmp_path)
    file = sorted(f for f in tmp_path.iterdir() if f.suffix != ".json")[-1]
    file.write_bytes(file.read_bytes()[:keep])
    net = meta()
    with pytest.raises(WeightsError, match=file.name):
        load_into(net, tmp_path)
    assert all(p.is_meta for p in net.parameters())


def test_a_flipped_byte_in_a_compressed_file_is_found(tmp_path: Path) -> None:
    packed_single(tmp_path)
    file = tmp_path / "model.safetensors.zst"
    raw = bytearray(file.read_bytes())
    raw[-20] ^= 0xFF
    file.write_bytes(raw)
    with pytest.raises(WeightsError, match=file.name):
        load_into(meta(), tmp_path)


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff" * 64,
        (30).to_bytes(8, "little") + b"{" * 30,
        (2).to_bytes(8, "little") + b"[]",
        (46).to_bytes(8, "little") + b'{"a":{"dtype":"X9","shape":[],"data_offsets":[',
        b"hello, this is a text file, not weights",
    ],
)
def test_files_of_another_kind_are_named(raw: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(raw)
    for read in (inspect_checkpoint, load_tensors, read_metadata):
        with pytest.raises(WeightsError, match=r"model\.safetensors"):
            read(file)


def test_headers_that_overlap_are_refused(tmp_path: Path) -> None:
    header = json.dumps(
        {
            "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
        }
    ).encode()
    file = tmp_path / "x.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(WeightsError, match="b lies at bytes 4 to 8"):
        inspect_checkpoint(file)


def test_missing_shards_are_named(tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match="1 of 2 shards are missing: model-00001-of-00002"):
        inspect_checkpoint(tmp_path)


def test_an_index_must_agree_with_its_shards(tmp_path: Path) -> None:
    file = sharded(tmp_path) / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"]["ghost"] = "model-00001-of-00002.safetensors"
    file.write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="says that ghost is in it, but it is not"):
        inspect_checkpoint(tmp_path)
    for broken in ("{", "[]", "{}", '{"weight_map": {"a": 3}}'):
        file.write_text(broken)
        with pytest.raises(WeightsError, match=r"index\.json is not an index"):
            inspect_checkpoint(tmp_path)


def test_a_folder_must_say_which_file_is_meant(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"looked for \*\.safetensors\.index\.json"):
        inspect_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        inspect_checkpoint(tmp_path / "nowhere")
    sharded(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(WeightsError, match=r"2 files \*\.safetensors"):
        inspect_checkpoint(tmp_path)


def test_a_plain_file_is_preferred_to_its_compressed_form(tmp_path: Path) -> None:
    raw = file_itself(tmp_path).read_bytes()
    pack(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").write_bytes(raw)
    assert {i.file.suffix for i in inspect_checkpoint(tmp_path).values()} == {".safetensors"}


def test_without_zstandard_the_cure_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed_single(tmp_path)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ImportError, match=r"pip install 'magi-world\[magi1\]'.*zstd -d"):
        inspect_checkpoint(tmp_path)


class Bomb:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return __import__("os").mkdir, (str(self.path),)


def test_pickles_are_not_executed(tmp_path: Path) -> None:
    torch.save({"a": Bomb(tmp_path / "boom")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin"):
        load_into(meta(), tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(
        pickle.dumps({"a": Bomb(tmp_path / "boom")}, protocol=2)
    )
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin"):
        load_into(meta(), tmp_path)
    assert not (tmp_path / "boom").exists()
    torch.save({"a": [1, 2]}, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="plain table"):
        inspect_checkpoint(tmp_path)
