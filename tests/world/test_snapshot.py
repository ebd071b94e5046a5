"""Snapshots continue exactly; forks share memory until they diverge; files are refused clearly."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from magi_world.io.safetensors_io import load_tensors, read_metadata, save_tensors
from magi_world.model.dit import parameter_dtype
from magi_world.world.snapshot import Snapshot
from magi_world.world.world import World
from tests.tiny import tiny_parts, tiny_world

FORMS = [(1, 1), (2, 1), (4, 1), (2, 3)]


def running(window: int, passes: int, worlds: int = 2) -> World:
    parts = tiny_parts(window, passes=passes, distilled=passes == 1)
    world = World(parts, worlds)
    world.reset(seed=3, prompt="a cave")
    for command in ("turn left", "walk forward", "turn left"):
        world.step(command)
    return world


def future(world: World) -> np.ndarray:
    say = ("turn right", "hop", None, "turn left")
    return np.stack([world.step(c).frames for c in say])


@pytest.mark.parametrize(("window", "passes"), FORMS)
def test_restore_continues_exactly(window: int, passes: int) -> None:
    world = running(window, passes)
    snapshot = world.snapshot()
    want = future(world)
    for _ in range(2):
        world.restore(snapshot)
        np.testing.assert_array_equal(future(world), want)


@pytest.mark.parametrize(("window", "passes"), FORMS)
def test_file_continues_exactly_in_a_new_world(window: int, passes: int, tmp_path: Path) -> None:
    world = running(window, passes)
    world.snapshot().save(tmp_path / "a.safetensors")
    want = future(world)
    other = World(tiny_parts(window, passes=passes, distilled=passes == 1), 2)
    other.restore(Snapshot.load(tmp_path / "a.safetensors"))
    np.testing.assert_array_equal(future(other), want)
    assert other.seeds == world.seeds


def test_file_keeps_a_start_that_is_still_in_flight(tmp_path: Path) -> None:
    world = tiny_world(1, 4)
    world.reset(seed=1, image=np.full((32, 48, 3), 90, np.uint8))
    world.snapshot().save(tmp_path / "a.safetensors")
    want = future(world)
    other = tiny_world(1, 4)
    other.restore(Snapshot.load(tmp_path / "a.safetensors"))
    np.testing.assert_array_equal(future(other), want)


@pytest.mark.parametrize(("window", "passes"), FORMS)
def test_forks_are_independent_and_exact(window: int, passes: int) -> None:
    world = running(window, passes)
    one, two = world.fork(2)
    other_path = np.stack([one.step("jump").frames for _ in range(4)])
    want = future(world)
    np.testing.assert_array_equal(future(two), want)
    assert not np.array_equal(other_path, want)


def test_fork_shares_memory_until_it_diverges() -> None:
    world = running(1, 1)

    def pointer(w: World) -> int:
        return w._stream.cache.k.untyped_storage().data_ptr()

    one, two = world.fork(2)
    assert pointer(one) == pointer(two) == pointer(world)
    one.step("turn left")
    assert pointer(one) != pointer(two) == pointer(world)


def test_fork_batch_continues_every_world_n_times() -> None:
    world = running(2, 1)
    wide = world.fork_batch(3)
    assert wide.num_worlds == 6
    want = future(world)
    np.testing.assert_array_equal(future(wide), want.repeat(3, axis=1))


def test_restore_of_single_worlds_touches_no_other() -> None:
    world, twin = running(2, 1), running(2, 1)
    snapshot = world.snapshot()
    world.step("hop")
    twin.step("hop")
    world.restore(snapshot, worlds=[1], row=0)
    fresh = running(2, 1)
    a, b, c = (future(w) for w in (world, twin, fresh))
    np.testing.assert_array_equal(a[:, 0], b[:, 0])
    np.testing.assert_array_equal(a[:, 1], c[:, 0])


def refused(world: World, snapshot: object, message: str) -> None:
    twin = world.fork(1)[0]
    with pytest.raises(ValueError, match=message):
        world.restore(snapshot)
    np.testing.assert_array_equal(future(world), future(twin))


def test_snapshot_of_another_world_is_refused() -> None:
    world = running(2, 1)
    snapshot = world.snapshot()
    refused(world, replace(snapshot, fingerprint="other"), "of another world: other, this is tiny")
    refused(world, running(1, 1).snapshot(), "another sampler")
    refused(world, running(2, 1, worlds=1).snapshot(), "is of 1 worlds, this is 2")
    refused(world, "a.safetensors", "snapshot is a str")


def test_unusable_files_are_named(tmp_path: Path) -> None:
    world = running(1, 1)
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileNotFoundError, match=r"a\.safetensors"):
        Snapshot.load(path)
    save_tensors(path, {"x": torch.zeros(1)})
    with pytest.raises(ValueError, match="not a snapshot"):
        Snapshot.load(path)
    save_tensors(path, {"x": torch.zeros(1)}, {"snapshot": '{"version": 99}'})
    with pytest.raises(ValueError, match="version 99"):
        Snapshot.load(path)
    world.snapshot().save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        Snapshot.load(path)


def test_snapshot_before_reset_is_refused() -> None:
    with pytest.raises(ValueError, match="not reset"):
        tiny_world().snapshot()


@pytest.mark.parametrize("n", [0, -2])
def test_fewer_than_one_fork_is_refused(n: int) -> None:
    world = running(1, 1)
    for fork in (world.fork, world.fork_batch):
        with pytest.raises(ValueError, match=f"n is {n}; it must be at least 1"):
            fork(n)


def test_a_batch_of_another_size_needs_to_be_told_which_worlds() -> None:
    four = tiny_world(4)
    four.reset(seed=1)
    world = running(1, 1)
    refused(world, four.snapshot(), "is of 4 worlds, this is 2; say which")
    twin = tiny_world(1)
    twin.restore(four.snapshot(), row=3)
    assert twin.seeds == (4,)


@pytest.mark.parametrize("row", [-1, 2, True, 0.0, "0"])
def test_rows_that_are_not_there_are_refused(row: object) -> None:
    world = running(1, 1)
    with pytest.raises(ValueError, match="worlds is"):
        world.restore(world.snapshot(), row=row)


def test_snapshots_of_another_precision_or_noise_are_refused(tmp_path: Path) -> None:
    parts = tiny_parts()
    world = World(parts, 2)
    world.reset(seed=3)
    world.step("turn left")
    dit = copy.deepcopy(parts.dit)
    for name, weight in dit.named_parameters():
        weight.data = weight.data.to(parameter_dtype(name, torch.float32, torch.bfloat16))
    narrow = World(replace(parts, dit=dit), 2)
    narrow.reset(seed=4)
    with pytest.raises(ValueError, match=r"another precision: torch\.float32.*torch\.bfloat16"):
        narrow.restore(world.snapshot())
    quiet = World(parts, 2, noise_scale=0.5)
    with pytest.raises(ValueError, match=r"another noise scale: 1\.0, this is 0\.5"):
        quiet.restore(world.snapshot())
    quiet.reset(seed=1)
    quiet.snapshot().save(tmp_path / "a.safetensors")
    assert Snapshot.load(tmp_path / "a.safetensors").noise_scale == 0.5


def changed(path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> Path:
    """The snapshot file with its record or tensors changed."""
    tensors = {n: t.clone() for n, t in load_tensors(path).items()}
    record = json.loads(read_metadata(path)["snapshot"])
    change(record, tensors)
    save_tensors(path, tensors, {"snapshot": json.dumps(record)})
    return path


NAMES = ("fingerprint", "sampler", "prompts", "rows", "captions", "window", "filled", "version")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [None, "x", -1, [], {}, [[1]], 10**12])
def test_records_are_not_believed(name: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    running(2, 1).snapshot().save(path)
    if name == "fingerprint" and value == "x":
        pytest.skip("a fingerprint may be any text")
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        Snapshot.load(changed(path, lambda record, _: record.update({name: value})))
    with pytest.raises(ValueError, match=name):
        Snapshot.load(changed(path, lambda record, _: record.pop(name)))


@pytest.mark.parametrize("name", ["latents", "newest_clean", "k", "v", "caption.0"])
def test_tensors_are_not_believed(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"

    def refused_with(change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> None:
        running(2, 1).snapshot().save(path)
        with pytest.raises(ValueError, match=r"a\.safetensors"):
            Snapshot.load(changed(path, change))

    refused_with(lambda _, t: t[name].flatten()[:1].fill_(float("nan")))
    refused_with(lambda _, t: t.update({name: t[name][None]}))
    refused_with(lambda _, t: t.update({name: t[name].to(torch.int32)}))
    if name != "caption.0":  # without its features a caption is the null caption
        refused_with(lambda _, t: t.pop(name))
        refused_with(lambda _, t: t.update({name: t[name][:1]}))


def test_what_was_loaded_does_not_change_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    world = running(2, 1)
    world.snapshot().save(path)
    loaded = Snapshot.load(path)
    want = future(world)
    path.write_bytes(bytes(path.stat().st_size))
    world.restore(loaded)
    np.testing.assert_array_equal(future(world), want)


def test_captions_from_a_file_lie_as_those_of_memory_do(tmp_path: Path) -> None:
    world = running(4, 1, 1)
    # A header of another length moves every tensor of the file.
    for letters in range(1, 9):
        path = tmp_path / "a.safetensors"
        save_tensors(path, *_padded(world.snapshot(), "x" * letters))
        for row in Snapshot.load(path).state.rows:
            for caption in row.texts:
                assert caption.features is not None
                assert caption.features.data_ptr() % 16 == 0


def _padded(snapshot: Snapshot, padding: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    tensors, metadata = snapshot.packed()
    return {**tensors, padding: torch.zeros(len(padding), dtype=torch.uint8)}, metadata
