"""Every benchmark that is run by hand gets to its end, in a tiny run that measures nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = (
    "engine_cpu",
    "env_cpu",
    "latency",
    "long_history",
    "memory",
    "parallel_cpu",
    "rllib_cpu",
    "serve",
    "training_cpu",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_tiny_run_gets_to_its_end(name: str) -> None:
    if name == "serve" and find_spec("websockets") is None:
        pytest.skip("websockets is not installed")
    if name == "rllib_cpu" and (find_spec("ray") is None or find_spec("stable_baselines3") is None):
        pytest.skip("Ray or Stable-Baselines3 is not installed")
    command = [sys.executable, f"benchmarks/{name}.py", "--tiny"]
    dummy = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}
    environment = {**os.environ, **dummy, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *before, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert last["load"] >= 0
    assert last["done"]
    assert not any(line["done"] for line in before)
