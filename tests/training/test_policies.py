"""Who plays: sticky random commands, held once or long, trained agents."""

from __future__ import annotations

import itertools
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from safetensors.numpy import load_file
from toy import COMMANDS, Bar, record_config

from magi_world.training.collect import record_shard
from magi_world.training.policies import NearestCommand, Once, StickyRandom


def test_sticky_random_holds_and_draws_everything() -> None:
    policy = StickyRandom(None, COMMANDS, np.random.default_rng(0), stay=0.5)
    said = []
    for _ in range(30):
        policy.reset()
        said += [policy.command() for _ in range(30)]
    assert set(said) == set(COMMANDS)
    held = np.mean([a == b for a, b in itertools.pairwise(said)])
    assert 0.55 < held < 0.85
    never = StickyRandom(None, COMMANDS, np.random.default_rng(0), weights={"stay": 0})
    assert "stay" not in {never.command() for _ in range(100)}
    with pytest.raises(ValueError, match=r"weights names \['fly'\]"):
        StickyRandom(None, COMMANDS, np.random.default_rng(0), weights={"fly": 1})
    with pytest.raises(ValueError, match="stay is 1"):
        StickyRandom(None, COMMANDS, np.random.default_rng(0), stay=1)


def test_a_world_needs_no_policy_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "shard.safetensors"
    config = record_config(
        policy="magi_world.training.policies:StickyRandom", policy_options={"weights": {"stay": 0}}
    )
    record_shard(config, 0, path)
    assert set(load_file(path)["command"].tolist()) == {1, 2}
    with pytest.raises(ValueError, match=r"cannot be made with .*strength"):
        record_shard(record_config(policy_options={"strength": 3}), 0, path)


def test_once_then_waits(tmp_path: Path) -> None:
    once = {
        "controller": "magi_world.training.policies:Once",
        "options": {"action": 1, "then": 0, "chunk": 8},
    }
    path = tmp_path / "shard.safetensors"
    config = record_config(actions={"go left": once, "stay": 0}, chunks=8, chunks_per_shard=4)
    record_shard(config, 0, path)
    shard = load_file(path)
    bar = shard["frames"][:, :, 0, :, 0].argmax(-1).astype(int)
    for i in range(1, len(bar)):
        if shard["command"][i] == 0 and not shard["end"][i] and bar[i - 1, -1] > 0:
            assert bar[i, 0] == bar[i - 1, -1], "what was before is seen"
            assert (bar[i, 1:] == bar[i - 1, -1] - 1).all(), "one step, then none"
    with pytest.raises(ValueError, match="times is 9"):
        Once(None, 1, 0, chunk=8, times=9)


def test_actions_become_their_nearest_command() -> None:
    discrete = NearestCommand(gym.spaces.Discrete(3), {"a": 2, "b": 0})
    assert discrete.row([2, 2, 0]) == 0
    assert discrete.row([0, 2, 0]) == 1
    wheel = gym.spaces.Box(np.array([-1, 0], np.float32), np.array([1, 1], np.float32))
    drive = NearestCommand(wheel, {"rest": [0, 0], "left": [-1, 0], "gas": [0, 0.1]})
    near = [np.array([-0.2, 0.09], np.float32)]
    assert drive.row(near) == 2, "every axis counts by how far the commands use it"
    with pytest.raises(ValueError, match="only controllers"):
        NearestCommand(wheel, {"a": {"controller": "x:Y"}})


def test_an_agent_of_sb3_plays(tmp_path: Path) -> None:
    sb3 = pytest.importorskip("stable_baselines3")

    class Narrow(gym.ObservationWrapper):
        """The Bar with its picture alone: what a CNN policy takes."""

        def __init__(self) -> None:
            super().__init__(Bar())
            self.observation_space = gym.spaces.Box(0, 255, (36, 36, 3), np.uint8)

        def observation(self, observation: object) -> np.ndarray:
            return np.zeros((36, 36, 3), np.uint8)

    agent = sb3.PPO("MlpPolicy", Narrow(), n_steps=2, batch_size=2, device="cpu")
    agent.save(tmp_path / "agent.zip")

    from magi_world.training.policies import TrainedAgent

    def player(**more: object) -> TrainedAgent:
        options = {
            "file": str(tmp_path / "agent.zip"),
            "actions": {c: i for i, c in enumerate(COMMANDS)},
        }
        return TrainedAgent(Narrow(), COMMANDS, np.random.default_rng(0), **{**options, **more})  # type: ignore[arg-type]

    policy = player(random=0.0)
    policy.see(np.zeros((36, 36, 3), np.uint8))
    assert {policy.command() for _ in range(40)} <= set(COMMANDS)
    with pytest.raises(ValueError, match="no file"):
        player(file="nowhere.zip")
    with pytest.raises(ValueError, match="algorithm is 'PPPO'"):
        player(algorithm="PPPO")
