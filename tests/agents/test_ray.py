"""RLlib as an engine, and dreams on Ray's workers."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray", reason="Ray is not installed")

import ray

from magi_world.agents.cluster import cluster, ray_pool
from magi_world.agents.dreaming import DreamConfig, dream, local_pool, read_units, unit_file
from magi_world.agents.ppo.config import TrainAgentConfig
from magi_world.agents.ppo.policy import PolicyAgent, read_policy
from magi_world.agents.ppo.progress import read_rows
from magi_world.agents.ppo.rllib import train_agent_with_rllib
from magi_world.training.loop import Stopped
from tests.agents.ray_worlds import write_world

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world") / "tiny")


@pytest.fixture(scope="module", autouse=True)
def one_cluster() -> object:
    with cluster():
        yield


def small(world: Path, runners: int, updates: int) -> TrainAgentConfig:
    return TrainAgentConfig(
        world=str(world),
        num_envs=2,
        horizon=3,
        rollout=4,
        batch=8,
        steps=8 * max(1, runners) * updates,
        epochs=1,
        features=16,
        checkpoints=2,
        engine="rllib",
        env_runners=runners,
        device="cpu",
    )


def kill(kind: str) -> int:
    """Kill one of Ray's processes; how many were found."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            name = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            continue
        if name.startswith("ray::") and kind in name:
            os.kill(int(pid), signal.SIGKILL)
            return 1
    return 0


def test_a_run_stops_goes_on_and_gives_a_policy(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, lines = small(world, 0, 4), []

    def stop_after_two(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped, match="stopped at step 16 of 32"):
        train_agent_with_rllib(config, tmp_path, stop_after_two)
    train_agent_with_rllib(config, tmp_path, lines.append)
    assert [int(row["steps"]) for row in read_rows(tmp_path / "progress.csv")] == [8, 16, 24, 32]
    record, _ = read_policy(tmp_path)
    assert record.steps == 32
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step_16", "step_32"]
    frames = np.zeros((8, *record.frame_size, 3), np.uint8)
    assert PolicyAgent.load(tmp_path).act(frames, {"chunk": 0}) in record.commands
    with pytest.raises(ValueError, match="trained with horizon = 3, not 4"):
        train_agent_with_rllib(replace(config, horizon=4), tmp_path)


def test_a_killed_runner_is_replaced(world: Path, tmp_path: Path) -> None:
    lines, killed = [], []

    def tell(line: str) -> None:
        lines.append(line)
        if len(lines) == 1:
            killed.append(kill("EnvRunner"))

    train_agent_with_rllib(small(world, 2, 4), tmp_path, tell)
    assert killed == [1]
    assert len(lines) == 4
    assert read_policy(tmp_path)[0].steps == 64


def test_workers_of_ray_dream_the_same(world: Path, tmp_path: Path) -> None:
    config = DreamConfig(str(world), episodes=6, chunks=2, batch=2, device="cpu")
    told: list[int] = []

    def kill_once(done: int, total: int) -> None:
        told.append(done)
        if done == 1:
            kill("Worker")

    dream(config, tmp_path / "here", local_pool(1), lambda done, total: None)
    dream(config, tmp_path / "there", ray_pool(2), kill_once)
    assert told == [0, 1, 2, 3]
    for unit in config.units:
        here, there = (unit_file(tmp_path / name, unit) for name in ("here", "there"))
        one, other = list(read_units(config, [here])), list(read_units(config, [there]))
        for a, b in zip(one, other, strict=True):
            assert np.array_equal(a.frames, b.frames)
            assert a.commands == b.commands
    assert ray.is_initialized()
