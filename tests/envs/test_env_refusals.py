"""MagiWorldEnv: what is wrong is named, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, ResetNeeded

from magi_world.envs import MagiWorldEnv
from magi_world.loading import LoadOptions
from tests.envs.worlds import fast_world
from tests.tiny import write_tiny_package

BAD_ACTIONS = [
    (3, "actions=.discrete. takes numbers"),
    (None, "it must be a str"),
    (b"turn left", "it must be a str"),
    (["turn left"], "it must be a str"),
    ("", "must say something"),
    ("   ", "must say something"),
    ("x" * 1025, "has 1,025 characters"),
    ("tourne à gauche", "with 'à'; it must be printable ASCII"),
    ("turn\nleft", r"with '\\n'; it must be printable ASCII"),
]


@pytest.mark.parametrize(("action", "message"), BAD_ACTIONS)
def test_bad_actions_are_named_and_change_nothing(action: object, message: str) -> None:
    env, twin = MagiWorldEnv(fast_world()), MagiWorldEnv(fast_world())
    env.reset(seed=0)
    twin.reset(seed=0)
    assert action not in env.action_space
    with pytest.raises(ValueError, match=message):
        env.step(action)
    np.testing.assert_array_equal(env.step("turn left")[0], twin.step("turn left")[0])


BAD_ARGUMENTS = [
    ({"world": 3}, "world is 3, a int; it must be a name"),
    ({"world": "no-such-world"}, "there is no world 'no-such-world'"),
    ({"observation": "pixels"}, "observation is 'pixels'; it must be one of 'chunk', 'frame'"),
    ({"reward": 3.0}, "reward is 3.0; it must be 'learned'"),
    ({"reward": "learned"}, "has no reward heads"),
    ({"reward": "text:"}, "reward is 'text:'"),
    ({"max_chunks": 0}, "max_chunks is 0; it must be a whole number from 1"),
    ({"max_chunks": True}, "max_chunks is True"),
    ({"prompt": 3}, "prompt is 3"),
    ({"prompt": " "}, "must say something"),
    ({"start": 99}, "start is 99; it must be a number 0 .. 2, 'text'"),
    ({"start": True}, "start is True"),
    ({"start": np.zeros(3, np.uint8)}, r"start has shape \(3,\)"),
    ({"start": np.zeros((4, 4, 3))}, "start: frames are float64"),
    ({"seed": -1}, "seed is -1"),
    ({"steer": "later"}, "steer is 'later'; it must be one of 'now', 'queue'"),
    ({"render_mode": "ascii"}, "render_mode is 'ascii'"),
    ({"load": {"num_steps": 2}}, "load has num_steps 2, but world is a World"),
    ({"load": {"steps": 2}}, "load has 'steps'; it may have device, dtype, num_steps"),
    ({"load": 3}, "load is 3; it must be a LoadOptions or a mapping"),
    ({"actions": "numbers"}, "actions is 'numbers'; it must be one of 'text', 'discrete'"),
    ({"observation": "image", "frames": 9}, "frames is 9; a chunk of this world has 8"),
    ({"observation": "image", "frames": 0}, "frames is 0; it must be a whole number from 1"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MagiWorldEnv(**{"world": fast_world(), **arguments})


def test_arguments_of_loading_reach_the_world(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path / "w")
    env = MagiWorldEnv(str(package), load={"num_steps": 2, "window_size": 2, "noise_scale": 0.5})
    sampler = env.world.parts.config.sampler
    assert (sampler.num_steps, sampler.window_size) == (2, 2)
    env.reset(seed=0)
    env.step("turn left")
    with pytest.raises(ValueError, match="weights is for"):
        MagiWorldEnv(package, load=LoadOptions(weights=tmp_path))
    with pytest.raises(ValueError, match="needs weights=DIR"):
        MagiWorldEnv("magi-1-4.5b-distill")


BAD_OPTIONS = [
    ({"scene": "x"}, "options has 'scene'; it may have prompt, start, image, video, snapshot"),
    ([1], r"options is \[1\]; it must be a dict"),
    ({"prompt": 4}, "prompt is 4"),
    ({"start": 7}, "start is 7"),
    ({"image": 7}, "image is 7, a int"),
    ({"video": np.zeros((4, 4, 3), np.uint8)}, r"video has shape \(4, 4, 3\)"),
    ({"image": np.zeros((4, 4, 4, 3), np.uint8)}, r"image has shape \(4, 4, 4, 3\)"),
    ({"start": 1, "image": np.zeros((4, 4, 3), np.uint8)}, "options has start and image"),
    ({"snapshot": 3}, "snapshot is a int"),
    ({"reset_mask": np.ones(1, bool)}, "options has 'reset_mask'"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_bad_options_are_named_and_the_episode_goes_on(options: object, message: str) -> None:
    env, twin = MagiWorldEnv(fast_world()), MagiWorldEnv(fast_world())
    env.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.reset(seed=1, options=options)
    np.testing.assert_array_equal(env.step("turn left")[0], twin.step("turn left")[0])
    assert env.reset()[1]["seed"] == twin.reset()[1]["seed"]


def test_order_of_calls() -> None:
    env = MagiWorldEnv(fast_world(), render_mode="rgb_array")
    with pytest.raises(ResetNeeded, match="before the first reset"):
        env.step("turn left")
    with pytest.raises(ResetNeeded, match=r"call reset\(\) first"):
        env.render()
    env.reset(seed=0)
    env.close()
    env.close()
    for call in (env.reset, env.render, env.snapshot, lambda: env.step("x"), lambda: env.fork(1)):
        with pytest.raises(ClosedEnvironmentError, match="was closed"):
            call()
