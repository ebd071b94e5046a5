"""The grid of recipes trains every arm for its time, and goes on where it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from toy_world import write_config, write_text

from magi_world.training.text import TEXT

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "recipe_grid.py"


@pytest.mark.slow
def test_arms_are_trained_and_taken_up_again(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(recording)
    write_text(tmp_path / TEXT)
    changes = ("  max_chunks_per_episode: 80\n", ""), ("chunks: 240", "chunks: 90")
    config = write_config(tmp_path / "bar.yaml", *changes, ("shard: 80", "shard: 30"))
    line = [sys.executable, str(SCRIPT), str(config), "--run", str(tmp_path), "--minutes", "0.001"]
    told = []
    for _ in range(2):
        options = ["--arms", "today", "patch1", "--clips", "2", "--threads", "1"]
        done = subprocess.run([*line, *options], capture_output=True, text=True, check=True)
        rows = [row for row in done.stdout.splitlines() if row.startswith('{"what"')]
        told.append([json.loads(row) for row in rows])
    first, second = told
    assert [row["arm"] for row in first] == ["today", "patch1"]
    assert [row["steps"] for row in first] == [50, 50]
    assert first[1]["tokens"] == 4 * first[0]["tokens"]
    assert all(len(row["clean_error"]) == 3 and "gain_db" in row for row in first)
    for row, again in zip(first, second, strict=True):  # the time was used up: nothing more
        assert row["steps"] == again["steps"]
        assert row["clean_error"] == again["clean_error"]
