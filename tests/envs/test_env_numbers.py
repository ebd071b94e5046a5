"""Numbers for actions and stacked pictures, as arguments of the environments themselves."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete, MultiDiscrete
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from magi_world.envs import MagiWorldEnv, MagiWorldVectorEnv
from magi_world.envs.wrappers import (
    ChunkToImage,
    DiscreteCommands,
    VectorChunkToImage,
    VectorDiscreteCommands,
)
from tests.envs.worlds import Ends, fast_world, sometimes

ID = "magi_world:MagiWorld-v0"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("frames", [1, 4, 8])
def test_one_environment_is_what_the_wrappers_make_of_it(frames: int) -> None:
    ours = gym.make(ID, world=fast_world(), actions="discrete", observation="image", frames=frames)
    theirs = ChunkToImage(DiscreteCommands(MagiWorldEnv(fast_world())), frames)
    check_env(ours.unwrapped, skip_render_check=True)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space == Discrete(4)
    np.testing.assert_array_equal(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
    for action in (1, np.int64(2), torch.tensor(3), np.array([0])):
        one, other = ours.step(action), theirs.step(action)
        np.testing.assert_array_equal(one[0], other[0])
        assert one[4]["command"] == int(np.asarray(action).item())
        assert "prompt" not in one[4]
    assert ours.unwrapped.get_keys_to_action() == theirs.env.get_keys_to_action()  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_a_batch_is_what_the_wrappers_make_of_it(mode: AutoresetMode) -> None:
    options: dict[str, Any] = {"max_chunks": 3, "autoreset_mode": mode}
    world = fast_world(heads=Ends(sometimes))
    ours = MagiWorldVectorEnv(
        3, world, actions="discrete", observation="image", frames=2, **options
    )
    theirs = VectorChunkToImage(
        VectorDiscreteCommands(MagiWorldVectorEnv(3, world, **options)), frames=2
    )
    assert ours.action_space == theirs.action_space == MultiDiscrete([4, 4, 4])
    np.testing.assert_array_equal(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
    ends = 0
    for actions in (np.array([1, 2, 3]), [0, 1, 0], torch.tensor([3, 3, 1]), (2, 2, 2)):
        one, other = ours.step(actions), theirs.step(actions)
        for a, b in zip(one[:4], other[:4], strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(one[4].get("final_obs", ()), other[4].get("final_obs", ()), strict=True):
            np.testing.assert_array_equal(a, b)
        ends += int((one[2] | one[3]).sum())
    assert ends > 2


def test_pictures_are_on_the_worlds_device_too() -> None:
    envs = MagiWorldVectorEnv(2, fast_world(), observation="image", frames=3, output="torch")
    seen, _ = envs.reset(seed=0)
    assert isinstance(seen, torch.Tensor)
    assert (seen.shape, seen.dtype) == ((2, 32, 48, 9), torch.uint8)
    shown = envs.shown_chunk().frames[:, -3:]
    np.testing.assert_array_equal(seen.numpy()[..., 3:6], shown[:, 1])


def test_a_picture_survives_snapshots_and_forks() -> None:
    env = MagiWorldEnv(fast_world(), observation="image", actions="discrete")
    env.reset(seed=0)
    seen = env.step(1)[0]
    state, (twin,) = env.snapshot(), env.fork(1)
    after = env.step(2)[0]
    np.testing.assert_array_equal(twin.step(2)[0], after)
    np.testing.assert_array_equal(env.restore(state)[0], seen)
    batch = env.fork_batch(2)
    np.testing.assert_array_equal(batch.step([2, 1])[0][0], after)


@pytest.mark.parametrize("action", [4, -1, True, 1.0, "turn left", None, torch.tensor([1, 2])])
def test_what_is_no_number_of_a_command_is_named(action: Any) -> None:
    env = MagiWorldEnv(fast_world(), actions="discrete")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action is .*; it must be 0 .. 3"):
        env.step(action)
    wrapped = DiscreteCommands(MagiWorldEnv(fast_world()))
    with pytest.raises(ValueError, match=r"it must be 0 .. 3"):
        wrapped.action(action)


def test_call_get_attr_and_set_attr_of_a_batch() -> None:
    envs = MagiWorldVectorEnv(2, fast_world(), max_chunks=5, render_mode="rgb_array")
    envs.reset(seed=4, options={"lerobot_new_rollout": True})
    assert envs.call("_max_episode_steps") == (5, 5)
    assert [p.shape for p in envs.call("render")] == [(32, 48, 3)] * 2
    assert envs.get_attr("commands") == (envs.commands,) * 2
    assert envs.get_attr("action_space") == (envs.single_action_space,) * 2
    assert len(set(envs.get_attr("np_random_seed"))) == 2
    assert all(isinstance(text, str) for text in envs.call("task_description"))
    envs.set_attr("note", "one")
    envs.set_attr("note", ["two", "two"])
    assert envs.get_attr("note") == ("two", "two")
    wrapped = VectorChunkToImage(VectorDiscreteCommands(envs))
    assert wrapped.call("_max_episode_steps") == (5, 5)
    wrapped.set_attr("note", "three")
    assert wrapped.get_attr("note") == ("three", "three")
    with pytest.raises(ValueError, match="it belongs to all 2 worlds"):
        envs.set_attr("note", ["one", "two"])
    with pytest.raises(ValueError, match="it acts on all worlds"):
        envs.call("reset")
    with pytest.raises(AttributeError, match="nothing"):
        envs.get_attr("nothing")


def test_numbers_throughout_the_info() -> None:
    """Texts would become arrays of objects in a batch, which no array library takes."""
    envs = MagiWorldVectorEnv(
        2, fast_world(heads=Ends(sometimes)), actions="discrete", max_chunks=2
    )
    infos = [envs.reset(seed=0)[1], envs.step([1, 2])[4], envs.step([0, 0])[4]]

    def arrays(info: dict[str, Any]) -> list[Any]:
        values = info.values()
        return [a for v in values for a in (arrays(v) if isinstance(v, dict) else [v])]

    for info in infos:
        info.pop("final_obs", None)
        assert all(array.dtype != object for array in arrays(info))
    env = MagiWorldEnv(fast_world(), actions="discrete", prompt="a scene")
    assert env.reset(seed=0)[1]["command"] == 0
    assert env.reset(options={"prompt": "another"})[1].keys() == env.step(2)[4].keys()

    def reward(chunk: Any, info: dict[str, Any]) -> tuple[float, bool]:
        return float(info["prompt"] == "turn right"), False

    env = MagiWorldEnv(fast_world(), actions="discrete", reward=reward)
    env.reset(seed=0)
    assert [env.step(action)[1] for action in (2, 1)] == [1.0, 0.0]
