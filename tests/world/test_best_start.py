"""The start that a world opens with when nobody asks for another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from magi_world.io.package import read_package
from magi_world.world import start as module
from magi_world.world.start import best_start, last_frames, variety
from tests.tiny import tiny_parts, write_tiny_package


def test_a_view_has_more_to_see_than_a_wall() -> None:
    wall = np.full((32, 48, 3), 120, np.uint8)
    wall[::2] += 20  # texture as fine as this is no view
    view = np.zeros((32, 48, 3), np.uint8)
    view[:16] = (20, 30, 200)
    view[20:28, 8:20] = 255
    assert variety(view) > 10 * variety(wall)


def test_it_is_the_one_whose_last_picture_varies_most(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = tiny_parts()
    frames = last_frames(parts)
    assert frames.shape == (3, 32, 48, 3)
    assert best_start(parts) == int(np.argmax([variety(f) for f in frames]))
    frames = np.zeros((3, 32, 48, 3), np.uint8)
    frames[1, :16] = 255
    monkeypatch.setattr(module, "last_frames", lambda parts: frames)
    assert best_start(parts) == 1


def test_a_package_may_name_it(tmp_path: Path) -> None:
    folder = write_tiny_package(tmp_path / "tiny")
    parts = read_package(folder)
    assert parts.spec.best_start is None
    named = replace(parts, spec=replace(parts.spec, best_start=2))
    assert best_start(named) == 2
    from magi_world.io.package import write_package

    write_package(folder, named)
    assert read_package(folder).spec.best_start == 2


def test_a_world_without_start_videos_has_none() -> None:
    assert best_start(tiny_parts(num_starts=0)) is None
