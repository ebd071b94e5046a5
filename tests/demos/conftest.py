"""What the tests of the demos share."""

from __future__ import annotations

from pathlib import Path

import pytest

from magi_world import loading
from tests.tiny import write_tiny_package

SCRIPT = """world: tiny
script:
  - {say: turn left, for: 2}
  - fork: [turn left, turn right]
  - say: walk forward
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the script a.yaml, where one tiny world is installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "SHIPPED", tmp_path / "worlds")
    monkeypatch.setattr(loading, "INSTALLED", tmp_path / "none")
    write_tiny_package(tmp_path / "worlds" / "tiny")
    Path("a.yaml").write_text(SCRIPT)
    return tmp_path
