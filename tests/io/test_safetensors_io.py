"""Modules filled strictly from checkpoints; tensors saved whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from magi_world.io.safetensors_io import (
    WeightsError,
    find_nan,
    inspect_checkpoint,
    load_into,
    load_tensors,
    read_metadata,
    save_tensors,
)
from tests.layouts import LAYOUTS, Net, meta, sharded, single, tensors


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_module(layout: Callable[[Path], Path], tmp_path: Path) -> None:
    source = layout(tmp_path)
    infos = inspect_checkpoint(source)
    want = tensors()
    assert {n: (i.dtype, i.shape) for n, i in infos.items()} == {
        n: (t.dtype, tuple(t.shape)) for n, t in want.items()
    }
    assert all(i.file.is_file() for i in infos.values())
    assert sum(i.nbytes for i in infos.values()) == sum(t.nbytes for t in want.values())
    before = {f.name for f in tmp_path.iterdir()}
    net = load_into(meta(), source)
    assert {f.name for f in tmp_path.iterdir()} == before  # nothing is unpacked beside it
    for name, value in net.state_dict().items():
        assert value.dtype == want[name].dtype
        assert torch.equal(value.view(torch.uint8), want[name].view(torch.uint8)), name


def test_each_parameter_gets_its_own_precision(tmp_path: Path) -> None:
    asked = []

    def dtype_of(name: str, info: object) -> torch.dtype:
        asked.append(name)
        if name == "packed":
            return torch.float8_e4m3fn
        return torch.bfloat16 if name.endswith("weight") else torch.float32

    net = load_into(meta(), single(tmp_path), "cpu", dtype_of)
    assert net.first.weight.dtype == net.second.weight.dtype == torch.bfloat16
    assert net.first.bias.dtype == torch.float32
    assert net.count.dtype == torch.int64
    assert "count" not in asked
    assert torch.equal(net.first.weight, tensors()["first.weight"].bfloat16())


def test_a_bar_is_shown_where_it_is_wanted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    load_into(meta(), sharded(tmp_path))
    assert capfd.readouterr().err == ""
    load_into(meta(), tmp_path, progress=True)
    assert "100%" in capfd.readouterr().err


def test_names_may_differ_or_be_unwanted(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4, bias=False), nn.Linear(3, 4, bias=False)

    save_tensors(tmp_path / "x.safetensors", {"table": torch.ones(4, 3), "lm.w": torch.ones(9)})
    with torch.device("meta"):
        net = Tied()
    load_into(net, tmp_path, ignore=("lm.",), stored_name=lambda name: "table")
    assert net.a.weight.data_ptr() == net.b.weight.data_ptr()
    with torch.device("meta"):
        net = Tied()
    with pytest.raises(WeightsError, match=r"2 missing: a\.weight, b\.weight; 2 extra: lm\.w, tab"):
        load_into(net, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first.bias": None}, "1 missing: first.bias"),
        ({"other": torch.ones(2)}, "1 extra: other"),
        ({"first.bias": torch.ones(5)}, r"1 wrong shape: first.bias \[5\] instead of \[4\]"),
        (
            {"packed": torch.ones(1, 4, 4)},
            "1 wrong dtype: packed torch.float32 inst",
        ),
        ({"first.bias": torch.ones(4).to(torch.float8_e4m3fn)}, "1 wrong dtype: first.bias"),
        ({"count": torch.ones(2)}, "1 wrong dtype: count torch.float32 instead of torch.int64"),
        ({f"x{i}": torch.ones(1) for i in range(9)}, "9 extra: x0, x1, x2, x3, ...$"),
    ],
)
def test_what_does_not_fit_is_refused_unread(
    change: dict[str, Tensor | None], message: str, tmp_path: Path
) -> None:
    changed = {k: v for k, v in (tensors() | change).items() if v is not None}
    save_tensors(tmp_path / "model.safetensors", changed)
    net = meta()
    with pytest.raises(WeightsError, match=message):
        load_into(net, tmp_path)
    assert all(p.is_meta for p in net.parameters())


def test_all_faults_are_listed_at_once(tmp_path: Path) -> None:
    changed = tensors() | {"other": torch.ones(2), "second.weight": torch.ones(1)}
    del changed["first.bias"]
    save_tensors(tmp_path / "model.safetensors", changed)
    with pytest.raises(WeightsError, match=r"not fit Net: 1 missing: .*; 1 extra: .*; 1 wrong"):
        load_into(meta(), tmp_path)


def test_a_buffer_that_is_not_stored_must_not_be_left_empty(tmp_path: Path) -> None:
    with torch.device("meta"):
        net = Net()
        net.register_buffer("table", torch.zeros(2), persistent=False)
    with pytest.raises(RuntimeError, match="table"):
        load_into(net, single(tmp_path))


def test_saving_replaces_whole_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.safetensors"
    save_tensors(file, {"a": torch.ones(3)}, {"kind": "test"})
    assert read_metadata(file) == {"kind": "test"}

    def full_disk(values: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("magi_world.io.safetensors_io.save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_tensors(file, {"a": torch.zeros(3)})
    assert torch.equal(load_tensors(file)["a"], torch.ones(3))
    assert [f.name for f in tmp_path.iterdir()] == ["x.safetensors"]


def test_views_and_shared_memory_are_saved_apart(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    given = {"all": base, "row": base[1], "turned": base.t(), "again": base}
    save_tensors(tmp_path / "x.safetensors", given | {"grad": torch.ones(2, requires_grad=True)})
    loaded = load_tensors(tmp_path / "x.safetensors")
    for name, value in given.items():
        assert torch.equal(loaded[name], value)
    assert read_metadata(tmp_path / "x.safetensors") == {}


def test_a_prefix_selects_and_is_taken_off(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    save_tensors(file, {"net.a": torch.ones(1), "net.b": torch.ones(2), "c": torch.ones(3)})
    assert {n: len(t) for n, t in load_tensors(file, "net.").items()} == {"a": 1, "b": 2}
    assert len(load_tensors(file)) == 3
    with pytest.raises(FileNotFoundError, match=r"y\.safetensors"):
        load_tensors(tmp_path / "y.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_the_first_weight_that_is_not_finite_is_named(value: float) -> None:
    net = Net()
    assert find_nan(net) is None
    with torch.no_grad():
        net.second.weight[1, 2] = value
    assert find_nan(net) == "second.weight"


def test_nan_is_found_in_fp8() -> None:
    net = Net()
    net.packed.data = torch.full((1, 4, 4), float("nan")).to(torch.float8_e4m3fn)
    assert find_nan(net) == "packed"
