"""The simulator behind the interface of the dream."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.utils.env_checker import check_env

from magi_world.envs.env import MagiWorldEnv
from magi_world.envs.real import RealWorldEnv, make_real_vector
from magi_world.envs.wrappers import ChunkToImage, DiscreteCommands
from tests.envs.real_toy import SHIPPED, toy_config
from tests.envs.worlds import fast_world


def bar(frames: np.ndarray) -> list[int]:
    """Where the bar is in each frame."""
    return frames[:, 0, :, 0].argmax(-1).tolist()


def test_a_command_is_held_for_one_chunk() -> None:
    env = RealWorldEnv(toy_config())
    frames, info = env.reset(seed=0)
    assert frames.shape == (8, 16, 16, 3)
    assert frames.dtype == np.uint8
    (start,) = set(bar(frames))  # chunk 0 is real, and the default command stands still
    assert (info["chunk"], info["prompt"], info["lands"], info["seed"]) == (0, "stay", 0, 0)
    assert info["simulator_reward"] == 8.0
    frames, _, _, _, info = env.step("go left")
    assert bar(frames) == [max(0, start - i) for i in range(1, 9)]
    assert (info["chunk"], info["prompt"], info["lands"]) == (1, "go left", 1)
    info = env.step("go left")[4]
    assert (info["chunk"], info["lands"]) == (2, 1)


def test_reward_is_of_real_events_and_death_is_the_end() -> None:
    env = RealWorldEnv(toy_config())
    env.reset(seed=0)
    hits, chunks, over = 0.0, 0, False
    while not over:
        _, reward, over, cut, info = env.step("go left")
        chunks += 1
        assert not cut
        hits += info["events"]["hit"]
        died = info["events"]["death"]
        assert died == info["events"]["end"] == float(over)
        assert reward == info["events"]["hit"] - 2 * died
    assert hits == 5  # the sixth is the end itself
    assert info["chunk"] == chunks


def test_limits_truncate() -> None:
    env = RealWorldEnv(toy_config())
    env.reset(seed=0)
    for chunk in range(1, 5):  # 40 steps of the simulator, eight of them in chunk 0
        _, _, terminated, truncated, info = env.step("stay")
        assert not terminated
        assert truncated == (chunk == 4)
    assert info["events"]["death"] == 0
    env = RealWorldEnv(toy_config(), max_chunks=2)
    env.reset(seed=0)
    assert env.step("stay")[2:4] == (False, False)
    assert env.step("stay")[2:4] == (False, True)
    with pytest.raises(ResetNeeded, match="ended"):
        env.step("stay")


class Both(gym.Wrapper):
    """A simulator that calls its own limit an end as well, as ViZDoom does."""

    def step(self, action):  # type: ignore[no-untyped-def]
        seen, reward, ended, cut, info = self.env.step(action)
        return seen, reward, ended or cut, cut, info


def test_a_limit_that_is_called_an_end_is_a_limit() -> None:
    env = RealWorldEnv(toy_config())
    env.simulator.env = Both(env.simulator.env)
    env.reset(seed=0)
    for _ in range(4):
        _, reward, terminated, truncated, _ = env.step("stay")
    assert (reward, terminated, truncated) == (0.0, False, True)


def test_seeds_decide_everything() -> None:
    one, two = RealWorldEnv(toy_config()), RealWorldEnv(toy_config())
    places = []
    for seed in (3, 4, 3, 5, 6, 7):
        frames, info = one.reset(seed=seed)
        assert np.array_equal(frames, two.reset(seed=seed)[0])
        assert info["seed"] == seed
        places.append(bar(frames)[0])
    assert places[0] == places[2]
    assert len(set(places)) > 1
    drawn = [env.reset()[1]["seed"] for env in (one, two, one, two)]
    assert drawn[0] == drawn[1] != drawn[2] == drawn[3]
    fixed = RealWorldEnv(toy_config(), seed=9)
    assert [fixed.reset()[1]["seed"] for _ in range(2)] == [9, 9]


def test_phrasings_are_understood_and_other_words_refused() -> None:
    env = RealWorldEnv(toy_config())
    env.reset(seed=0)
    assert env.step("Please  go left")[4]["prompt"] == "go left"
    assert env.step("now go right")[4]["prompt"] == "go right"
    with pytest.raises(ValueError, match=r"'fly'.*stay, go left, go right"):
        env.step("fly")
    assert env.step("stay")[4]["chunk"] == 3


def test_it_is_shaped_like_the_dream() -> None:
    env, dream = RealWorldEnv(toy_config()), MagiWorldEnv(fast_world())
    _, told = env.reset(seed=0)
    _, expected = dream.reset(seed=0)
    assert set(expected) <= set(told)
    assert type(env.action_space) is type(dream.action_space)
    assert env.observation_space.dtype == dream.observation_space.dtype
    assert len(env.observation_space.shape or ()) == len(dream.observation_space.shape or ())
    check_env(env, skip_render_check=True)


def test_wrappers_of_the_dream_fit() -> None:
    env = ChunkToImage(DiscreteCommands(RealWorldEnv(toy_config())), frames=3)
    picture, _ = env.reset(seed=0)
    assert picture.shape == (16, 16, 9)
    assert env.step(1)[4]["prompt"] == "go left"


def test_render() -> None:
    env = RealWorldEnv(toy_config(), render_mode="rgb_array_list")
    frames, _ = env.reset(seed=0)
    assert np.array_equal(np.stack(env.render()), frames)
    env = RealWorldEnv(toy_config(), render_mode="rgb_array")
    frames, _ = env.reset(seed=0)
    assert np.array_equal(env.render(), frames[-1])


def test_many_side_by_side_begin_anew_by_themselves() -> None:
    envs = make_real_vector(toy_config(), 3, max_chunks=2, frames=2)
    pictures, _ = envs.reset(seed=5)
    assert pictures.shape == (3, 16, 16, 6)
    alone = RealWorldEnv(toy_config())
    for row in range(3):
        assert np.array_equal(pictures[row, :, :, 3:], alone.reset(seed=5 + row)[0][-1])
    envs.step(np.array([0, 1, 2]))
    pictures, _, _, truncated, infos = envs.step(np.array([0, 1, 2]))
    assert truncated.all()
    assert infos["chunk"].tolist() == [0, 0, 0]
    assert [final.shape for final in infos["final_obs"]] == [(16, 16, 6)] * 3
    assert infos["final_info"]["chunk"].tolist() == [2, 2, 2]
    envs.close()


def test_stable_baselines_takes_them() -> None:
    pytest.importorskip("stable_baselines3")
    from magi_world.envs.sb3 import SB3VecEnv

    envs = SB3VecEnv(make_real_vector(toy_config(), 2, max_chunks=1, frames=1))
    envs.seed(1)
    assert envs.reset().shape == (2, 16, 16, 3)
    _, rewards, done, infos = envs.step(np.array([0, 2]))
    assert done.all()
    assert rewards.shape == (2,)
    assert all(info["TimeLimit.truncated"] for info in infos)
    assert infos[1]["prompt"] == "go right"


def test_what_cannot_be_is_named(tmp_path: Path) -> None:
    config = toy_config()
    with pytest.raises(ValueError, match="max_chunks is 0"):
        RealWorldEnv(config, max_chunks=0)
    with pytest.raises(ValueError, match="render_mode is 'human'"):
        RealWorldEnv(config, render_mode="human")
    with pytest.raises(ValueError, match=r"heads.reward names \['gold'\].*hit.*death"):
        RealWorldEnv(replace(config, heads=replace(config.heads, reward={"gold": 1.0})))
    with pytest.raises(ValueError, match="num_envs is 0"):
        make_real_vector(config, 0)
    with pytest.raises(FileNotFoundError):
        RealWorldEnv(tmp_path / "none.yaml")
    env = RealWorldEnv(config)
    with pytest.raises(ResetNeeded, match="first reset"):
        env.step("stay")
    with pytest.raises(ValueError, match="options"):
        env.reset(options={"start": 1})
    with pytest.raises(ValueError, match="seed is -1"):
        env.reset(seed=-1)
    env.close()
    env.close()
    with pytest.raises(ClosedEnvironmentError):
        env.reset()


@pytest.mark.slow
def test_the_shipped_simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vizdoom")
    monkeypatch.chdir(tmp_path)  # ViZDoom leaves files where it runs
    env = RealWorldEnv(SHIPPED, max_chunks=3)
    one = [env.reset(seed=4)[0], *(env.step(c)[0] for c in ("turn left", "go ahead", "halt"))]
    two = [env.reset(seed=4)[0], *(env.step(c)[0] for c in ("turn left", "go ahead", "halt"))]
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert one[0].shape == (8, 64, 64, 3)
    assert not np.array_equal(one[0][-1], one[1][-1])
    env.close()
