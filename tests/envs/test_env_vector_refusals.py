"""MagiWorldVectorEnv: what is wrong is named, and changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, ResetNeeded

from magi_world.envs import MagiWorldVectorEnv
from tests.envs.worlds import PLAN, fast_world, together

BAD_ARGUMENTS = [
    ({"num_envs": 0}, "num_envs is 0"),
    ({"autoreset_mode": "LATER"}, "autoreset_mode is 'LATER'; it must be one of 'NEXT_STEP'"),
    ({"output": "jax"}, "output is 'jax'"),
    ({"prompt": ["a", "b"]}, "prompt has 2 entries, but there are 3 worlds"),
    ({"start": [1, 2]}, "start has 2 entries, but there are 3 worlds"),
    ({"start": [1, 2, 9]}, "start is 9"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MagiWorldVectorEnv(**{"num_envs": 3, "world": fast_world(), **arguments})


BAD_RESETS = [
    ({"seed": [1, 2]}, "seed has 2 entries, but there are 3 worlds"),
    ({"seed": -4}, "seed is -4"),
    ({"seed": "x"}, "seed is 'x'"),
    ({"options": {"reset_mask": [True, False, True]}}, "reset_mask is a list"),
    ({"options": {"reset_mask": np.ones(2, bool)}}, r"reset_mask is bool of shape \(2,\)"),
    ({"options": {"reset_mask": np.zeros(3, bool)}}, "reset_mask is all False"),
    ({"options": {"prompt": ["a"]}}, "prompt has 1 entries"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_RESETS)
def test_bad_resets_are_named_and_change_nothing(arguments: dict[str, Any], message: str) -> None:
    envs, twin = together(), together()
    envs.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises((TypeError, ValueError), match=message):
        envs.reset(**arguments)
    np.testing.assert_array_equal(envs.step(PLAN[0])[0], twin.step(PLAN[0])[0])


BAD_ACTIONS = [
    ("turn left", "actions is 'turn left'; it must be a list of 3 texts"),
    (3, "actions is 3; it must be a list of 3 texts"),
    (np.array(3), r"actions is array\(3\); it must be a list of 3 texts"),
    (("turn left",), "actions has 1 entries; it must have 3"),
    (("turn left", 4, "turn left"), "action 1 is 4, a int"),
    (None, "actions is None"),
]


@pytest.mark.parametrize(("actions", "message"), BAD_ACTIONS)
def test_bad_actions_are_named_and_change_nothing(actions: Any, message: str) -> None:
    envs, twin = together(), together()
    envs.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises((TypeError, ValueError), match=message):
        envs.step(actions)
    np.testing.assert_array_equal(envs.step(PLAN[0])[0], twin.step(list(PLAN[0]))[0])


def test_order_of_calls() -> None:
    envs = together()
    with pytest.raises(ResetNeeded, match="before the first reset"):
        envs.step(PLAN[0])
    with pytest.raises(ResetNeeded, match="must be of all worlds"):
        envs.reset(options={"reset_mask": np.array([True, False, False])})
    envs.reset(seed=0)
    envs.close()
    envs.close()
    for call in (envs.reset, envs.render, envs.snapshot, lambda: envs.step(PLAN[0])):
        with pytest.raises(ClosedEnvironmentError, match="was closed"):
            call()


def test_the_mask_stays_in_the_users_options() -> None:
    envs = together()
    envs.reset(seed=0)
    options = {"reset_mask": np.array([True, False, False])}
    envs.reset(options=options)
    assert options.keys() == {"reset_mask"}


def test_what_peers_call_a_type_error_is_one() -> None:
    envs = together()
    envs.reset(seed=0)
    for call in (lambda: envs.step(3), lambda: envs.reset(options={"reset_mask": [True] * 3})):
        with pytest.raises(TypeError):
            call()
