"""MagiWorldEnv in the middle of an episode: copies, pickles, files, snapshots, forks."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from magi_world.envs import MagiWorldEnv, MagiWorldVectorEnv
from magi_world.envs.state import EnvSnapshot
from magi_world.world.snapshot import Snapshot
from magi_world.world.world import World
from tests.alike import assert_alike
from tests.envs.worlds import fast_world, heads
from tests.tiny import write_tiny_package

PLAN = ("turn left", "walk forward", "a red door", "turn right")


def run(env: Any, plan: tuple[str, ...] = PLAN) -> list[Any]:
    """Everything that an environment gives, with resets where an episode ends."""
    seen: list[Any] = []
    for text in plan:
        step = env.step(text)
        seen.append(step)
        if step[2] or step[3]:
            seen.append(env.reset())
    return seen


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


def saved(env: MagiWorldEnv, folder: Path) -> MagiWorldEnv:
    env.snapshot().save(folder / "state.safetensors")
    other = MagiWorldEnv(fast_world(heads=heads()), max_chunks=4)
    other.restore(folder / "state.safetensors")
    return other


COPIES: dict[str, Callable[[MagiWorldEnv, Path], MagiWorldEnv]] = {
    "deepcopy": lambda env, _: copy.deepcopy(env),
    "pickle": lambda env, _: pickle.loads(pickle.dumps(env)),
    "file": saved,
    "fork": lambda env, _: env.fork(2)[1],
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_goes_on_as_the_original(kind: str, tmp_path: Path) -> None:
    env = MagiWorldEnv(fast_world(heads=heads()), max_chunks=4)
    env.reset(seed=3)
    env.step("turn right")
    other = COPIES[kind](env, tmp_path)
    # Longer than the horizon, so that the seed of the next episode is compared, too.
    assert_same(run(env), run(other))


@pytest.mark.parametrize("kind", ["deepcopy", "pickle"])
def test_a_copy_can_be_made_before_the_first_reset(kind: str, tmp_path: Path) -> None:
    env = MagiWorldEnv(fast_world())
    other = COPIES[kind](env, tmp_path)
    assert_same(env.reset(seed=1), other.reset(seed=1))


def test_copies_share_the_weights_and_forget_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = MagiWorldEnv(fast_world(), render_mode="human")
    env.reset(seed=0)
    for other in (copy.deepcopy(env), *env.fork(2)):
        assert other.world.parts is env.world.parts
        assert other.world is not env.world
        other.step("turn left")
    assert env.fork(1)[0].render_mode is None


def test_an_environment_by_name_pickles_without_its_weights(tmp_path: Path) -> None:
    env = gym.make("magi_world:MagiWorld-v0", world=str(write_tiny_package(tmp_path / "w")))
    parts = env.unwrapped.world.parts
    weights = sum(p.nbytes for p in (*parts.dit.parameters(), *parts.vae.parameters()))
    with_weights = MagiWorldEnv(World(parts))
    assert len(pickle.dumps(env)) < len(pickle.dumps(with_weights)) - weights
    env.reset(seed=0)
    other = pickle.loads(pickle.dumps(env))
    assert_same(run(env), run(other))
    assert_same(run(env), run(copy.deepcopy(other).unwrapped))


def test_several_environments_of_one_world_do_not_meet() -> None:
    world = fast_world()
    world.reset(seed=8)
    before = world.snapshot()
    one, two = MagiWorldEnv(world), MagiWorldEnv(world)
    one.reset(seed=0)
    two.reset(seed=1)
    alone = MagiWorldEnv(fast_world())
    alone.reset(seed=0)
    for text in PLAN:
        two.step("walk forward")
        assert_same(one.step(text), alone.step(text))
    assert world.snapshot().prompts == before.prompts


def test_restore_takes_everything_back() -> None:
    env = MagiWorldEnv(fast_world(heads=heads()), max_chunks=3)
    env.reset(seed=1)
    env.step("turn left")
    state = env.snapshot()
    first = run(env)
    seen, info = env.restore(state)
    assert info["chunk"] == 1
    np.testing.assert_array_equal(seen, env.shown_chunk().frames[0])
    assert_same(run(env), first)


def test_restore_brings_back_the_end_of_an_episode() -> None:
    env = MagiWorldEnv(fast_world(), max_chunks=1)
    env.reset(seed=0)
    env.step("turn left")
    over = env.snapshot()
    env.reset()
    env.restore(over)
    with pytest.raises(gym.error.ResetNeeded):
        env.step("turn left")


def test_a_snapshot_can_begin_an_episode(tmp_path: Path) -> None:
    env = MagiWorldEnv(fast_world(), max_chunks=2)
    env.reset(seed=0)
    env.step("turn left")
    state = env.snapshot()
    state.save(tmp_path / "env.safetensors")
    state.world.save(tmp_path / "world.safetensors")
    seen, _, _, truncated, _ = env.step("turn right")
    assert truncated
    for snapshot in (
        state,
        state.world,
        tmp_path / "env.safetensors",
        str(tmp_path / "world.safetensors"),
    ):
        start, info = env.reset(options={"snapshot": snapshot})
        assert info["chunk"] == 1
        np.testing.assert_array_equal(start, state.chunk.frames[0])
        again, _, _, truncated, _ = env.step("turn right")
        np.testing.assert_array_equal(again, seen)
        assert not truncated  # the horizon counts from the reset
        assert env.step("turn right")[3]


def test_an_environments_file_is_a_worlds_file(tmp_path: Path) -> None:
    env = MagiWorldEnv(fast_world())
    env.reset(seed=0)
    env.snapshot().save(tmp_path / "s.safetensors")
    world = World(env.world.parts)
    world.restore(Snapshot.load(tmp_path / "s.safetensors"))
    np.testing.assert_array_equal(world.step("turn left").frames[0], env.step("turn left")[0])
    env.snapshot().world.save(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="is the snapshot of a world, not of an environment"):
        EnvSnapshot.load(tmp_path / "w.safetensors")
    with pytest.raises(FileNotFoundError):
        env.restore(tmp_path / "none.safetensors")


def test_wrong_snapshots_are_named_and_change_nothing() -> None:
    env, twin = MagiWorldEnv(fast_world()), MagiWorldEnv(fast_world())
    env.reset(seed=0)
    twin.reset(seed=0)
    stranger = MagiWorldEnv(World(other_world()))
    stranger.reset(seed=0)
    stranger.step("turn left")
    pair = MagiWorldVectorEnv(2, fast_world())
    pair.reset(seed=0)
    fresh = fast_world()
    fresh.reset(seed=0)
    for wrong, message in (
        (stranger.snapshot(), "the snapshot is of another world"),
        (stranger.snapshot().world, "the snapshot is of another world"),
        (pair.snapshot(), "snapshot is of 2 worlds; it must be of 1"),
        (fresh.snapshot(), "right after a reset and holds no frames"),
    ):
        with pytest.raises(ValueError, match=message):
            env.reset(options={"snapshot": wrong})
        with pytest.raises(ValueError, match=message):
            env.restore(wrong)
    with pytest.raises(ValueError, match="snapshot is a dict"):
        env.restore({})
    assert_same(run(env), run(twin))


def other_world() -> Any:
    parts = fast_world().parts
    return replace(parts, spec=replace(parts.spec, fingerprint="another"))


def test_forks_part_ways() -> None:
    env = MagiWorldEnv(fast_world(heads=heads()))
    env.reset(seed=0)
    env.step("turn left")
    left, right = env.fork(2)
    seen = left.step("turn left")[0]
    assert (right.step("turn right")[0] != seen).any()
    assert_same(env.step("turn left")[0], seen)
    for wrong in (0, 1.5, True):
        with pytest.raises(ValueError, match="n is"):
            env.fork(wrong)


def test_a_batch_of_futures_equals_each_future() -> None:
    env = MagiWorldEnv(fast_world(heads=heads()))
    env.reset(seed=0)
    env.step("turn left")
    futures = env.fork_batch(3)
    assert isinstance(futures, MagiWorldVectorEnv)
    solo = env.fork(3)
    for texts in (("turn left", "turn right", "a cat"), ("walk forward",) * 3):
        seen, rewards, *_ = futures.step(texts)
        for row, (one, text) in enumerate(zip(solo, texts, strict=True)):
            alone = one.step(text)
            assert_alike(seen[row], alone[0])
            assert rewards[row] == pytest.approx(alone[1], rel=1e-5)
