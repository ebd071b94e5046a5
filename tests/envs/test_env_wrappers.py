"""DiscreteCommands and ChunkToImage, single and batched."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from magi_world.envs import MagiWorldEnv, MagiWorldVectorEnv
from magi_world.envs.wrappers import (
    ChunkToImage,
    DiscreteCommands,
    VectorChunkToImage,
    VectorDiscreteCommands,
)
from tests.alike import assert_alike
from tests.envs.worlds import Ends, fast_world, sometimes


def test_numbers_say_the_worlds_commands() -> None:
    env, plain = DiscreteCommands(MagiWorldEnv(fast_world())), MagiWorldEnv(fast_world())
    assert env.action_space == Discrete(4)
    env.reset(seed=0)
    plain.reset(seed=0)
    for action in (2, np.int64(1), np.array(3)):
        said = env.commands[int(action)]
        np.testing.assert_array_equal(env.step(action)[0], plain.step(said)[0])
    assert env.get_keys_to_action() == {(1073741904,): 1, (1073741903,): 2, (1073741906,): 3}


def test_numbers_can_say_other_things() -> None:
    inner = MagiWorldEnv(fast_world(), strict=False)
    env = DiscreteCommands(inner, ["walk forward", "open the door"])
    env.reset(seed=0)
    assert env.step(1)[4]["prompt"] == "open the door"
    assert env.get_keys_to_action() == {(1073741906,): 0}


@pytest.mark.parametrize("action", [4, -1, 1.0, "turn left", None, True, np.zeros(2, int)])
def test_bad_numbers_are_named(action: Any) -> None:
    env = DiscreteCommands(MagiWorldEnv(fast_world()))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"it must be 0 \.\. 3"):
        env.step(action)


def test_bad_command_tables_are_named() -> None:
    env = MagiWorldEnv(fast_world())
    for commands, message in (([], "must be a list"), ("turn", "must be a list"), (["à"], "ASCII")):
        with pytest.raises(ValueError, match=message):
            DiscreteCommands(env, commands)
    with pytest.raises(ValueError, match="is for a world's texts"):
        DiscreteCommands(DiscreteCommands(env))


@pytest.mark.parametrize(("frames", "every"), [(1, 1), (4, 1), (3, 2), (10, 1), (4, 4)])
@pytest.mark.parametrize("observation", ["chunk", "frame"])
def test_pictures_hold_the_last_frames(frames: int, every: int, observation: str) -> None:
    plain = MagiWorldEnv(fast_world(), observation=observation)
    env = ChunkToImage(MagiWorldEnv(fast_world(), observation=observation), frames, every)
    history = list(np.atleast_3d(plain.reset(seed=1)[0]).reshape(-1, 32, 48, 3))
    history = [history[0]] * 40 + history
    picture = env.reset(seed=1)[0]
    for text in (None, "turn left", "walk forward", "turn left"):
        if text:
            history += list(plain.step(text)[0].reshape(-1, 32, 48, 3))
            picture = env.step(text)[0]
        wanted = history[::-1][: frames * every : every][::-1]
        np.testing.assert_array_equal(picture, np.concatenate(wanted, axis=-1))
        assert picture in env.observation_space


@pytest.mark.filterwarnings("error")
def test_wrapped_environments_keep_the_contract() -> None:
    env = ChunkToImage(DiscreteCommands(MagiWorldEnv(fast_world())))
    with pytest.warns(UserWarning, match="different from the unwrapped version") as said:
        check_env(env, skip_render_check=True)
    assert len(said) == 1


def test_pictures_are_not_made_of_latents() -> None:
    with pytest.raises(ValueError, match="observation='chunk' or 'frame'"):
        ChunkToImage(MagiWorldEnv(fast_world(), observation="latent"))
    for bad in ({"frames": 0}, {"every": 1.5}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))} is"):
            ChunkToImage(MagiWorldEnv(fast_world()), **bad)


MODES = [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("output", ["numpy", "torch"])
def test_batched_wrappers_equal_wrapped_environments(mode: AutoresetMode, output: str) -> None:
    """Against Gymnasium's own vector environment of wrapped single ones."""
    world = fast_world(heads=Ends(sometimes))

    def single() -> gym.Env[Any, Any]:
        return ChunkToImage(DiscreteCommands(MagiWorldEnv(world, max_chunks=4)), 10, 1)

    theirs = gym.vector.SyncVectorEnv([single] * 3, autoreset_mode=mode)
    envs: Any = MagiWorldVectorEnv(3, world, max_chunks=4, autoreset_mode=mode, output=output)
    ours = VectorChunkToImage(VectorDiscreteCommands(envs), 10, 1)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert_alike(theirs.reset(seed=5)[0], numpy(ours.reset(seed=5)[0]))
    rng, ends = np.random.default_rng(0), 0
    for _ in range(12):
        actions = rng.integers(0, 4, 3)
        a, b = theirs.step(actions), ours.step(actions)
        assert_alike(a[0], numpy(b[0]))
        np.testing.assert_array_equal(a[2] | a[3], b[2] | b[3])
        for x, y in zip(a[4].get("final_obs", ()), b[4].get("final_obs", ()), strict=True):
            assert_alike(x, None if y is None else numpy(y))
        over = b[2] | b[3]
        ends += int(over.sum())
        if mode is AutoresetMode.DISABLED and over.any():
            a, b = (e.reset(options={"reset_mask": over.copy()}) for e in (theirs, ours))
            assert_alike(a[0], numpy(b[0]))
    assert ends > 3


def numpy(x: Any) -> np.ndarray:
    return x.numpy() if isinstance(x, torch.Tensor) else x


@pytest.mark.parametrize("actions", [[1, 2], 3, [1, 2, 9], ["a", "b", "c"]])
def test_bad_batches_of_numbers_are_named(actions: Any) -> None:
    envs = VectorDiscreteCommands(MagiWorldVectorEnv(3, fast_world()))
    envs.reset(seed=0)
    with pytest.raises((TypeError, ValueError), match=r"it must (be|have)"):
        envs.step(actions)
    envs.step(torch.tensor([1, 2, 3]))
    envs.step(envs.action_space.sample())
