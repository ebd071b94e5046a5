"""Snapshots continue exactly; forks share memory until they diverge; files are refused clearly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from magi_world.snapshot import Snapshot
from magi_world.weights import save_tensors
from magi_world.world import World
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
    refused(world, running(2, 1, worlds=1).snapshot(), "holds 1 worlds; there is no world 1")
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
