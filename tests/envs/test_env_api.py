"""MagiWorldEnv: the Gymnasium contract, observations, actions, ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from magi_world.envs import MagiWorldEnv
from magi_world.world.chunk import Chunk
from magi_world.world.world import World
from tests.envs.worlds import Ends, brightness, fast_world, heads, sometimes
from tests.tiny import tiny_world, write_tiny_package

ID = "magi_world:MagiWorld-v0"


@pytest.fixture(autouse=True)
def _no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("observation", ["chunk", "frame", "latent"])
@pytest.mark.parametrize("render_mode", [None, "human", "rgb_array", "rgb_array_list"])
def test_check_env_has_nothing_to_say(observation: str, render_mode: str | None) -> None:
    world = fast_world(heads=heads())
    env = gym.make(ID, world=world, observation=observation, render_mode=render_mode)
    check_env(env.unwrapped)  # builds every declared render mode, too


@pytest.mark.filterwarnings("error")
def test_check_env_by_name_and_with_the_passive_checker(tmp_path: Path) -> None:
    env = gym.make(ID, world=write_tiny_package(tmp_path / "w"), max_chunks=5)
    check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=0)
    for _ in range(5):
        env.step(env.action_space.sample())


def test_importing_registers_and_loads_no_torch() -> None:
    code = "import sys, magi_world, gymnasium; gymnasium.spec('MagiWorld-v0'); "
    code += "assert 'torch' not in sys.modules and 'pygame' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_observations_are_the_same_world() -> None:
    kinds = {k: MagiWorldEnv(fast_world(), observation=k) for k in ("chunk", "frame", "latent")}
    decoder = tiny_world()
    for act in (lambda e: e.reset(seed=1)[0], lambda e: e.step("walk forward")[0]):
        seen = {k: act(e) for k, e in kinds.items()}
        np.testing.assert_array_equal(seen["chunk"][-1], seen["frame"])
        latents = torch.from_numpy(seen["latent"])[None]
        chunk = decoder.decode(Chunk(latents, (0,), ("",), (0,), (0,)))
        np.testing.assert_array_equal(chunk.frames[0], seen["chunk"])
        assert all(seen[kind] in env.observation_space for kind, env in kinds.items())


def test_latents_are_not_decoded_unless_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = World.decode
    monkeypatch.setattr(World, "decode", lambda self, c: (calls.append(1), original(self, c))[1])
    env = MagiWorldEnv(fast_world(heads=heads()), observation="latent", render_mode="rgb_array")
    env.reset(seed=0)
    calls.clear()
    env.step("turn left")
    assert calls == []
    picture = env.render()
    env.render()
    assert len(calls) == 1
    np.testing.assert_array_equal(picture, env.shown_chunk().frames[0, -1])


def test_observations_belong_to_the_user() -> None:
    env = MagiWorldEnv(fast_world(), render_mode="rgb_array")
    first, _ = env.reset(seed=2)
    kept, picture = first.copy(), env.render()
    first[:] = 0
    np.testing.assert_array_equal(env.render(), picture)
    np.testing.assert_array_equal(env.reset(seed=2)[0], kept)


def test_the_horizon_truncates_and_a_reset_goes_on() -> None:
    env = MagiWorldEnv(fast_world(), max_chunks=2, reward="none")
    env.reset(seed=0)
    assert env.step("turn left")[2:4] == (False, False)
    assert env.step("turn left")[2:4] == (False, True)
    with pytest.raises(ResetNeeded, match="the episode has ended"):
        env.step("turn left")
    env.reset()
    assert env.step("turn left")[2:4] == (False, False)


def test_a_predicted_end_terminates() -> None:
    env = MagiWorldEnv(fast_world(heads=Ends(sometimes)))
    env.reset(seed=0)
    for _ in range(20):
        _, _, terminated, truncated, info = env.step("turn left")
        assert truncated is False
        assert terminated is (info["events"]["end"] >= 0.5)
        if terminated:
            break
    assert terminated


def test_info_says_what_happened() -> None:
    env = MagiWorldEnv(fast_world(heads=heads()))
    _, info = env.reset(seed=5)
    first = {"chunk": 0, "prompt": "stand still", "lands": 0, "skip": 0, "seed": 5}
    assert {k: info[k] for k in first} == first
    assert info["rewards"] == {"learned": 0.0}
    assert 0 <= info["events"]["end"] <= 1
    info = env.step("turn left")[4]
    assert {k: info[k] for k in first} == {
        "chunk": 1, "prompt": "turn left", "lands": 1, "skip": 0, "seed": 5,
    }  # fmt: skip
    assert set(info["events"]) == {"hit", "died", "end"}
    assert info["rewards"].keys() == {"learned"}
    assert env.step("turn left")[4]["lands"] == 1


def shape_of(info: Any) -> Any:
    """Keys and types, all the way down."""
    return {k: shape_of(v) for k, v in info.items()} if isinstance(info, dict) else type(info)


@pytest.mark.parametrize(
    "reward", [None, "none", brightness, {"learned": 1.0, brightness: 2.0}, ["learned", "learned"]]
)
def test_info_has_the_same_keys_after_a_reset_a_step_and_a_restore(reward: Any) -> None:
    env = MagiWorldEnv(fast_world(heads=heads()), reward=reward)
    infos = [env.reset(seed=5)[1], env.step("turn left")[4], env.step("turn right")[4]]
    infos += [env.restore(env.snapshot())[1], env.reset(options={"snapshot": env.snapshot()})[1]]
    for info in infos:
        assert shape_of(info) == shape_of(infos[0])
    assert [info["seed"] for info in infos] == [5] * 5


def test_seeds_of_any_whole_kind() -> None:
    env = MagiWorldEnv(fast_world())
    seen, info = env.reset(seed=np.int64(7))
    assert type(info["seed"]) is int
    np.testing.assert_array_equal(seen, env.reset(seed=7)[0])
    with pytest.raises(ValueError, match="seed is -1; it must be a whole number from 0"):
        env.reset(seed=-1)


def test_the_spec_knows_the_length_of_an_episode(tmp_path: Path) -> None:
    package = str(write_tiny_package(tmp_path / "w"))
    env = gym.make(ID, world=package, max_chunks=5)
    assert env.spec is not None
    assert env.spec.max_episode_steps == 5
    again = gym.make(env.spec)
    again.reset(seed=0)
    ends = [again.step("turn left")[3] for _ in range(5)]
    assert ends == [False] * 4 + [True]
    envs = gym.make_vec(ID, num_envs=2, world=package, max_chunks=5)
    assert envs.spec is not None
    assert envs.spec.max_episode_steps == 5
    assert gym.make(ID, world=package).spec.max_episode_steps is None  # type: ignore[union-attr]


def test_steering_by_queue_lands_later() -> None:
    lands = {}
    for steer in ("now", "queue"):
        env = MagiWorldEnv(fast_world(window_size=2), steer=steer)
        env.reset(seed=0)
        env.step("turn left")
        lands[steer] = env.step("turn right")[4]["lands"]
    assert lands == {"now": 2, "queue": 3}


def test_any_text_is_an_action_where_texts_are_taken_as_they_are() -> None:
    env = MagiWorldEnv(fast_world(), strict=False)
    outcomes = []
    for text in ("a dragon lands on the roof", "a cat"):
        env.reset(seed=0)
        seen, _, _, _, info = env.step(text)
        assert info["prompt"] == text
        assert info["understood"]["command"] is None
        outcomes.append(seen)
    assert (outcomes[0] != outcomes[1]).any()


def test_sampled_actions_are_commands_and_reach_all_of_them() -> None:
    env = MagiWorldEnv(fast_world())
    env.action_space.seed(0)
    drawn = [env.action_space.sample() for _ in range(60)]
    assert set(drawn) == set(env.world.spec.command_names)
    env.action_space.seed(0)
    assert drawn == [env.action_space.sample() for _ in range(60)]
    only = np.array([0, 1, 0, 0], np.int8)
    assert {env.action_space.sample(mask=only) for _ in range(9)} == {"turn left"}
    with pytest.raises(ValueError, match="not all 0"):
        env.action_space.sample(mask=only * 0)
    with pytest.raises(ValueError, match="one of them"):
        env.action_space.sample(mask=only, probability=only)


def test_renders() -> None:
    last = MagiWorldEnv(fast_world(), render_mode="rgb_array")
    every = MagiWorldEnv(fast_world(), render_mode="rgb_array_list")
    seen, _ = last.reset(seed=0)
    every.reset(seed=0)
    np.testing.assert_array_equal(last.render(), seen[-1])
    np.testing.assert_array_equal(np.stack(every.render()), seen)
    assert last.metadata["render_fps"] == 100_000 // 8
    assert every.metadata["render_fps"] == 100_000
    assert MagiWorldEnv(tiny_world()).metadata["render_fps"] == 2
    silent = MagiWorldEnv(fast_world())
    silent.reset(seed=0)
    with pytest.warns(UserWarning, match="without a render_mode"):
        assert silent.render() is None


def test_stats_count_and_stay_out_of_info() -> None:
    env = MagiWorldEnv(fast_world(), reward=brightness)
    env.reset(seed=0)
    env.step("turn left")
    env.step("turn left")
    stats = env.stats
    assert (stats.resets, stats.steps, stats.chunks, stats.frames) == (1, 2, 2, 16)
    assert 0 < stats.last_step_seconds < stats.step_seconds
    assert stats.frames_per_second == pytest.approx(16 / stats.step_seconds)


def test_keys_are_those_of_the_commands() -> None:
    env = MagiWorldEnv(fast_world())
    named = {"left": "turn left", "right": "turn right", "up": "walk forward"}
    assert env.metadata["keys"] == named
    left, right, up = 1073741904, 1073741903, 1073741906
    assert env.get_keys_to_action() == {
        (left,): "turn left", (right,): "turn right", (up,): "walk forward",
    }  # fmt: skip
