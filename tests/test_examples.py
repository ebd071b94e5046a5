"""The examples run, each as a user runs it, on a tiny world."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from magi_world.io.package import write_package
from tests.envs.worlds import heads
from tests.tiny import tiny_parts, tiny_text

EXAMPLES = Path(__file__).parents[1] / "examples"
# What each prints, and what it needs.
RUNS = {
    "steer.py": ([], "taken back, the first future is the same", None),
    "ppo.py": (["64"], "64 chunks, ", "stable_baselines3"),
    "fork_planning.py": (["2"], "in all ", None),
    "language_agent.py": ([], "chunk 1: ", None),
    "rllib_ppo.py": ([], "64 chunks", "ray.rllib"),
    "tianshou_collect.py": ([], "8 chunks, ", "tianshou"),
}


def test_every_example_is_run_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_an_example(name: str, tmp_path: Path) -> None:
    arguments, said, needs = RUNS[name]
    if needs is not None:
        pytest.importorskip(needs, reason=f"needs {needs}")
    parts = tiny_parts()
    folder = tmp_path / "w"
    parts = replace(parts, text=tiny_text(folder / "text"), heads=heads(-20.0))
    write_package(folder, parts, torch.float32)
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    env.pop("MODEL_URL", None)
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), str(folder), *arguments],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert said in done.stdout
