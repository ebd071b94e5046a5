"""The environments with their worlds on a GPU."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from magi_world.envs import MagiWorldEnv, MagiWorldVectorEnv
from tests.tiny import write_tiny_package

pytestmark = pytest.mark.gpu


@pytest.fixture
def package(tmp_path: Path) -> str:
    return str(write_tiny_package(tmp_path / "w"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("observation", ["chunk", "latent"])
def test_check_env(package: str, observation: str) -> None:
    env = gym.make(
        "magi_world:MagiWorld-v0", world=package, load={"device": "cuda"}, observation=observation
    )
    check_env(env.unwrapped, skip_render_check=True)


def test_tensors_stay_there(package: str) -> None:
    envs = MagiWorldVectorEnv(3, package, load={"device": "cuda"}, output="torch", max_chunks=2)
    seen, _ = envs.reset(seed=0)
    for _ in range(3):
        assert isinstance(seen, torch.Tensor)
        assert seen.is_cuda
        seen, _, _, truncated, infos = envs.step(("turn left",) * 3)
        if truncated.any():
            assert all(final.is_cuda for final in infos["final_obs"])


def test_a_state_from_there_goes_on(package: str, tmp_path: Path) -> None:
    env = MagiWorldEnv(package, load={"device": "cuda"})
    env.reset(seed=0)
    env.step("turn left")
    env.snapshot().save(tmp_path / "s.safetensors")
    others = [copy.deepcopy(env), pickle.loads(pickle.dumps(env)), env.fork(1)[0]]
    others.append(MagiWorldEnv(package, load={"device": "cuda"}))
    others[-1].restore(tmp_path / "s.safetensors")
    seen = env.step("walk forward")[0]
    for other in others:
        np.testing.assert_array_equal(other.step("walk forward")[0], seen)
