"""World packages: written and read back exactly, and refused clearly where something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import magi_world
from magi_world.io.package import check_package, read_package, read_record, write_package
from magi_world.io.safetensors_io import WeightsError, load_tensors, save_tensors
from magi_world.world.world import World
from tests.tiny import tiny_parts, write_tiny_package


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_tiny_package(tmp_path / "tiny-world")


def edit(package: Path, **changes: object) -> None:
    record = read_record(package)
    (package / "world.json").write_text(json.dumps({**record, **changes}))


def test_loads_what_was_written(package: Path) -> None:
    parts = read_package(package)
    original = tiny_parts()
    for name, value in original.dit.state_dict().items():
        torch.testing.assert_close(parts.dit.state_dict()[name], value, rtol=0, atol=0)
    assert parts.config == original.config
    assert parts.spec.commands == original.spec.commands
    assert parts.spec.num_starts == 3
    assert check_package(package) == []


def test_load_world_by_path_steps(package: Path) -> None:
    one, two = (magi_world.load_world(package, num_worlds=2, device="cpu") for _ in range(2))
    for world in (one, two):
        world.reset(seed=1)
    np.testing.assert_array_equal(one.step("turn left").frames, two.step("turn left").frames)


def test_options_override_the_package(package: Path) -> None:
    world = magi_world.load_world(
        package, device="cpu", num_steps=8, window_size=2, frame_size=(48, 64), dtype="bfloat16"
    )
    assert world.parts.config.sampler.num_steps == 8
    world.reset(seed=0, start="text")
    assert world.step("turn left").frames.shape == (1, 8, 48, 64, 3)


def test_bfloat16_on_disk_is_what_a_bfloat16_stream_computes_with(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path / "a")
    parts = read_package(package)
    write_package(tmp_path / "b", parts, torch.bfloat16)
    again = read_package(tmp_path / "b", dtype="bfloat16")
    name = "videodit_blocks.layers.0.mlp.linear_fc1.weight"
    want = parts.dit.get_parameter(name).bfloat16()
    assert torch.equal(again.dit.get_parameter(name), want)
    world = World(again)
    world.reset()
    world.step("turn left")


def test_fingerprint_changes_with_the_weights(package: Path, tmp_path: Path) -> None:
    parts = read_package(package)
    parts.dit.final_linear.linear.weight.data += 1
    write_package(tmp_path / "b", parts, torch.float32)
    assert read_package(tmp_path / "b").spec.fingerprint != parts.spec.fingerprint


def test_unknown_world_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no world 'atlantis'.*magi-1-4\.5b-distill"):
        magi_world.load_world("atlantis")


def test_released_model_needs_weights() -> None:
    with pytest.raises(ValueError, match="needs weights=DIR"):
        magi_world.load_world("magi-1-4.5b-distill")


def test_weights_are_for_released_models(package: Path) -> None:
    with pytest.raises(ValueError, match="weights is for"):
        magi_world.load_world(package, weights="somewhere")


def test_missing_folder_and_file(package: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"world\.json"):
        read_package(package / "text")
    (package / "vae.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"vae\.safetensors"):
        read_package(package)
    assert "vae.safetensors is missing" in check_package(package)


def test_truncated_tensors(package: Path) -> None:
    path = package / "dit.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(WeightsError, match=r"dit\.safetensors"):
        read_package(package)
    assert any("dit.safetensors is damaged" in p for p in check_package(package))


def test_wrong_missing_and_extra_tensors(package: Path) -> None:
    path = package / "dit.safetensors"
    tensors = load_tensors(path)
    tensors = {k: v.clone() for k, v in tensors.items()}
    tensors["stray"] = torch.zeros(1)
    gone = tensors.pop("rope.bands")
    tensors["final_linear.linear.weight"] = torch.zeros(3, 3)
    save_tensors(path, tensors)
    with pytest.raises(WeightsError) as error:
        read_package(package)
    for name in ("stray", "rope.bands", "final_linear.linear.weight", "[3, 3]"):
        assert name in str(error.value)
    assert gone.ndim == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 99}, "schema 99"),
        ({"schema": "x"}, "integer field 'schema'"),
        ({"dit": {"layers": 2}}, "dit lacks hidden, ffn"),
        ({"sampler": {"num_steps": 7}}, "num_steps is 7"),
        ({"vae": {"colour": 1}}, "vae has no field 'colour'"),
        ({"schema": True}, "integer field 'schema'"),
        ({"fps": 0}, "fps is 0; it must be above 0"),
        ({"fps": -5}, "fps is -5"),
        ({"fps": "24"}, "fps is '24'; it must be a finite number"),
        ({"fps": None}, "fps is None"),
        ({"frame_size": [32]}, "frame_size has 1 entries"),
        ({"frame_size": ["32", "48"]}, r"frame_size\[0\] is '32'"),
        ({"frame_size": [32_000, 48_000]}, "up to 16,384"),
        ({"name": "../../evil"}, "name is '../../evil'"),
        ({"name": 3}, "name is 3"),
        ({"dtype": "float8"}, "dtype is 'float8'"),
        ({"commands": "go"}, "commands is 'go'; it must be a list"),
        ({"commands": [{"name": 3}]}, "name is 3"),
        ({"commands": [{"name": "a", "keys": "left"}]}, "keys is 'left'; it must be a list"),
        ({"commands": [{"name": "a"}, {"name": "a"}]}, "a name twice"),
        ({"default_command": "fly"}, "default_command is 'fly'"),
        ({"scene": 7}, "scene is 7"),
        ({"prompt_template": "{scene}"}, "needs {command}"),
        ({"quality": []}, r"quality is \[\]"),
        ({"files": None}, "files is None"),
        ({"files": {"../../x": "0"}}, "lies outside"),
        ({"heads": {"events": 3}}, "heads lacks latent_channels"),
    ],
)
def test_bad_records(package: Path, changes: dict, message: str) -> None:
    edit(package, **changes)
    with pytest.raises(WeightsError, match=message):
        read_package(package)


def test_record_that_is_not_json_and_field_that_is_missing(package: Path) -> None:
    record = read_record(package)
    record.pop("fps")
    (package / "world.json").write_text(json.dumps(record))
    with pytest.raises(WeightsError, match="no field 'fps'"):
        read_package(package)
    (package / "world.json").write_text("{")
    with pytest.raises(WeightsError, match="damaged"):
        read_package(package)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("dit", "layers", 10**9),
        ("dit", "layers", 0),
        ("dit", "layers", 2.5),
        ("dit", "heads", "4"),
        ("dit", "rescale", float("nan")),
        ("dit", "eps", -1.0),
        ("dit", "caption_channels", 8),
        ("vae", "depth", 10**9),
        ("vae", "heads", 0),
        ("vae", "scale_factor", 0),
        ("vae", "scale_factor", "1"),
        ("sampler", "num_steps", 10**6),
        ("sampler", "kv_range", []),
        ("sampler", "kv_range", [3.5]),
        ("sampler", "clean_t", "late"),
        ("sampler", "distilled", "yes"),
    ],
)
def test_sizes_are_not_believed(package: Path, part: str, name: str, value: object) -> None:
    record = read_record(package)
    edit(package, **{part: {**record[part], name: value}})
    with pytest.raises(WeightsError):
        read_package(package)


def test_starts_that_were_deleted_are_missed(package: Path) -> None:
    (package / "starts.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"starts\.safetensors is missing"):
        read_package(package)


@pytest.mark.parametrize("file", ["dit", "vae", "starts"])
def test_weights_that_are_no_numbers_are_named(package: Path, file: str) -> None:
    path = package / f"{file}.safetensors"
    tensors = {name: value.clone() for name, value in load_tensors(path).items()}
    name = next(name for name, value in tensors.items() if value.is_floating_point())
    tensors[name].flatten()[0] = float("nan")
    save_tensors(path, tensors)
    with pytest.raises(WeightsError, match=f"{file}.safetensors .*(NaN|finite)"):
        read_package(package)


@pytest.mark.parametrize("file", ["dit.safetensors", "text/features.safetensors"])
def test_other_weights_do_not_pass_under_the_old_fingerprint(package: Path, file: str) -> None:
    path = package / file
    tensors = {name: value.clone() for name, value in load_tensors(path).items()}
    next(iter(tensors.values())).add_(1)
    save_tensors(path, tensors)
    with pytest.raises(WeightsError, match=f"{file} is damaged"):
        read_package(package)


def test_text_encoder_that_cannot_be_packed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="HashText"):
        write_package(tmp_path / "x", tiny_parts())


def test_every_listed_world_loads_and_steps() -> None:
    for name in magi_world.list_worlds():
        world = magi_world.load_world(name, device="cpu")
        world.reset(seed=0)
        command = world.spec.command_names[0]
        height, width = world.spec.frame_size
        frames = world.step(command).frames
        assert frames.shape == (1, world.spec.frames_per_chunk, height, width, 3)
        assert frames.std() > 5
