"""Some worlds of a batch: stepped, kept and continued alone."""

from __future__ import annotations

import numpy as np
import pytest

from tests.alike import assert_alike
from tests.tiny import tiny_world


@pytest.mark.parametrize("window", [1, 2])
def test_some_worlds_step_and_the_others_stand_still(window: int) -> None:
    world, solo = tiny_world(3, window), tiny_world(1, window)
    world.reset(seed=5)
    solo.reset(seed=7)
    for command in ("turn left", "walk forward"):
        chunk = world.step([command, "turn right"], worlds=[2, 0])
        assert chunk.prompts == (command, "turn right")
        assert_alike(chunk.frames[0], solo.step(command).frames[0])
    assert world.step("turn left").index == (3, 1, 3)


@pytest.mark.parametrize("window", [1, 2])
def test_a_copy_of_one_world_goes_on_in_any_row_of_any_batch(window: int) -> None:
    world, other = tiny_world(3, window), tiny_world(2, window)
    world.reset(seed=5)
    world.step("turn left")
    kept = world.snapshot([1])
    assert kept.num_worlds == 1
    assert kept.state.latents.shape[0] == 1
    wanted = world.step("walk forward", worlds=[1]).frames
    other.reset(seed=90)
    other.restore(kept, worlds=[1], row=0)
    assert_alike(other.step("walk forward", worlds=[1]).frames, wanted)


def test_a_copy_is_not_changed_by_what_follows() -> None:
    world = tiny_world(2)
    world.reset(seed=1)
    kept = world.snapshot([0])
    first = world.step("turn left").frames[0]
    world.restore(kept, worlds=[0], row=0)
    assert np.array_equal(world.step("turn left").frames[0], first)


def test_some_worlds_may_step_before_all_were_reset() -> None:
    world = tiny_world(2)
    world.reset(seed=1, worlds=[1])
    world.step("turn left", worlds=[1])
    with pytest.raises(ValueError, match="world 0 was not reset"):
        world.step("turn left")
    with pytest.raises(ValueError, match="world 0 was not reset"):
        world.snapshot([0])
    with pytest.raises(ValueError, match="worlds is"):
        world.step("turn left", worlds=[2])
    with pytest.raises(ValueError, match="command has 2 entries"):
        world.step(["turn left", "turn right"], worlds=[1])
