"""The code on the page about environments runs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from magi_world import loading
from magi_world.io.package import write_package
from tests.envs.worlds import heads
from tests.tiny import tiny_parts, tiny_text

PAGE = Path(__file__).parents[2] / "docs" / "env.md"


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("stable_baselines3", reason="needs the extra sb3")
    # A tiny world with heads stands in for the shipped one, which is slower.
    monkeypatch.setattr(loading, "SHIPPED", tmp_path)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "courtyard"
    parts = replace(tiny_parts(), text=tiny_text(folder / "text"), heads=heads())
    write_package(folder, parts, torch.float32)
    # Its frames are too low for the policy's convolutions.
    text = PAGE.read_text().replace('"CnnPolicy"', '"MlpPolicy"')
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for block in blocks:
        exec(block, names)
    assert len(blocks) >= 7
    assert names["info"].keys() >= {"chunk", "rewards", "events"}
    assert (tmp_path / "films" / "episode-0000.mp4").exists()
