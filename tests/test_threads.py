"""How many threads torch gets, and that a forked process can compute."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from magi_world import threads
from magi_world.threads import free_threads, load_of_others, settle_threads, usable_cores
from tests.tiny import write_tiny_package


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> object:
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "_settled", False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("usual", "cores", "load", "chosen"),
    [
        (2, 2, 0.0, 2),
        (2, 2, 0.3, 2),
        (2, 2, 0.9, 1),
        (2, 2, 30.0, 1),
        (8, 16, 7.9, 8),
        (8, 16, 12.0, 4),
        (16, 16, 1.0, 15),
        (1, 16, 0.0, 1),
    ],
)
def test_no_more_threads_than_cores_that_are_free(
    usual: int, cores: int, load: float, chosen: int
) -> None:
    assert free_threads(usual, cores, load) == chosen


def test_a_busy_machine_gives_one_thread_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "load_of_others", lambda: 50.0)
    torch.set_num_threads(2)
    settle_threads("auto")
    assert torch.get_num_threads() == 1
    torch.set_num_threads(2)
    settle_threads("auto")
    assert torch.get_num_threads() == 2, "decided once a process"


@pytest.mark.parametrize(
    ("name", "value"), [("OMP_NUM_THREADS", "2"), ("OMP_WAIT_POLICY", "passive")]
)
def test_what_somebody_chose_stays(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setattr(threads, "load_of_others", lambda: 50.0)
    monkeypatch.setenv(name, value)
    torch.set_num_threads(2)
    settle_threads("auto")
    assert torch.get_num_threads() == 2
    monkeypatch.delenv(name)
    settle_threads(3)
    settle_threads("auto")
    settle_threads(None)
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("value", [0, -1, True, "many", 1.5])
def test_what_is_no_number_of_threads_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=r"threads is .*; it must be a whole number from 1"):
        settle_threads(value)  # type: ignore[arg-type]


def test_the_load_is_a_number() -> None:
    assert load_of_others() >= 0
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


ASYNC = """
import sys, torch, gymnasium as gym
torch.set_num_threads(4)
a = torch.randn(600, 600)
(a @ a).sum()  # the pool of threads is there now, and is not copied into the children
envs = gym.make_vec("magi_world:MagiWorld-v0", num_envs=2, vectorization_mode="async",
                    world=sys.argv[1], load={"threads": None}, max_chunks=3)
envs.reset(seed=0)
envs.step(("turn left", "turn right"))
envs.close()
print("stepped")
"""


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here"
)
def test_forked_environments_step_with_many_threads(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path / "w")
    quiet = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    done = subprocess.run(
        [sys.executable, "-c", ASYNC, str(package)],
        env=quiet, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.stdout == "stepped\n", done.stderr


FORKED = """
import multiprocessing, sys, torch
torch.set_num_threads(4)
a = torch.randn(600, 600)
(a @ a).sum()
import magi_world.loading
def child(): magi_world.load_world(sys.argv[1]).reset(seed=0)
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
print(process.exitcode)
"""


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here"
)
def test_a_world_that_is_first_loaded_in_a_forked_process(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path / "w")
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(package)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.stdout == "0\n", done.stderr
