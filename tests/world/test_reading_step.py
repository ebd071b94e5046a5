"""How much has to be read to follow one step, from text to pixels."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import magi_world
from magi_world.world.world import World
from tests.tiny import tiny_parts

HOUSE = Path(magi_world.__path__[0])


def files_of_a_step(world: World, command: str) -> set[str]:
    """The files of ours in which anything is called by one step."""
    found: set[str] = set()

    def look(frame: FrameType, event: str, argument: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(HOUSE):
            found.add(path.relative_to(HOUSE).as_posix())

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        world.step(command)
    finally:
        sys.setprofile(before)
    return found


@pytest.mark.parametrize("passes", [1, 3])
def test_a_step_is_read_in_fourteen_files(passes: int) -> None:
    world = World(tiny_parts(passes=passes, distilled=passes == 1))
    world.reset(seed=1)
    world.step("turn left")  # what is made once for all steps is made here
    found = files_of_a_step(world, "walk forward")
    assert {"world/world.py", "sampling/denoise.py", "model/dit.py", "model/vae.py"} <= found
    assert len(found) <= 14, sorted(found)


def test_so_is_a_step_of_a_shipped_world() -> None:
    world = magi_world.load_world(magi_world.list_worlds()[0], device="cpu", threads=None)
    world.reset(seed=1)
    commands = world.spec.command_names
    world.step(commands[0])
    found = files_of_a_step(world, commands[1])
    assert "model/static_text.py" in found
    assert len(found) <= 14, sorted(found)
