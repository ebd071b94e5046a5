"""Commands that name a goal or change the scene: what the recorder does with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from toy import record_config

from magi_world.simulator import ChunkSimulator, SceneConfig, Tint
from magi_world.training.collect import record_shard

LIGHTS = {"day": [1.0, 1.0, 1.0], "night": [0.5, 0.25, 0.0]}


class ToMiddle:
    """A goal for the bar: column 8. Looks inside the simulator."""

    def __init__(self, env: Any, middle: int) -> None:
        self.env, self.middle, self.begun = env, middle, 0

    def begin(self) -> None:
        self.begun += 1

    def action(self) -> int:
        off = self.middle - self.env.unwrapped.at
        return 0 if off == 0 else 2 if off > 0 else 1


def simulator(**changes: Any) -> ChunkSimulator:
    goal = {"controller": "test_scenes:ToMiddle", "options": {"middle": 8}}
    actions = {"go left": 1, "go to the middle": goal, "day": 0, "night": 0}
    scenes = SceneConfig(LIGHTS, {"day": 1.0})
    return ChunkSimulator(
        record_config(**{"actions": actions, "scenes": scenes, "mirror": {}, **changes})
    )


def test_a_goal_is_followed_step_by_step() -> None:
    sim = simulator()
    sim.reset(3)
    sim.env.unwrapped.at = 13
    chunk = sim.chunk(1)
    assert sim.env.unwrapped.at == 8
    assert chunk.frames[-1, 0, 8].tolist() == [250, 200, 30]
    controller = sim.actions[1].controller
    sim.chunk(1)
    assert controller.begun == 1  # held on, not begun again
    sim.chunk(0)
    sim.chunk(1)
    assert controller.begun == 2


def test_a_scene_fades_in_and_stays() -> None:
    sim = simulator()
    sim.reset(3)
    bright = sim.chunk(2).frames[-1].astype(float)
    fading = sim.chunk(3).frames.astype(float)
    red = fading[:, 12, 0, 0]
    assert (np.diff(red) < 0).all()
    np.testing.assert_allclose(fading[-1], (bright * LIGHTS["night"]).round())
    for command in (0, 3, 0):
        assert sim.chunk(command).frames[..., 2].max() == 0  # night has no blue
    assert sim.chunk(2).frames[-1, ..., 2].max() > 0


def test_episodes_begin_in_the_light_that_their_seed_draws() -> None:
    sim = simulator(scenes=SceneConfig(LIGHTS, {"day": 1.0, "night": 1.0}))
    dark = []
    for seed in range(20):
        sim.reset(seed)
        dark.append(bool(sim.chunk(0).frames[..., 2].max() == 0))
    assert 4 <= sum(dark) <= 16
    sim.reset(5)
    assert bool(sim.chunk(0).frames[..., 2].max() == 0) == dark[5]


def test_recorded_under_the_goals_own_name(tmp_path: Any) -> None:
    config = simulator().config
    path = tmp_path / "shard.safetensors"
    assert record_shard(config, 0, path) == config.chunks_per_shard


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="fog"):
        record_config(scenes=SceneConfig({"fog": [1, 1, 1]}, {"fog": 1.0}))
    with pytest.raises(ValueError, match="start names"):
        SceneConfig(LIGHTS, {"dusk": 1.0})
    with pytest.raises(ValueError, match="three factors"):
        Tint({"night": [0.5, 2.0, 0.1]})
    with pytest.raises(ValueError, match="unknown entries"):
        simulator(actions={"a": {"controller": "test_scenes:ToMiddle", "option": {}}}, scenes=None)
