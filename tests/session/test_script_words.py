"""Scripts speak in sentences; a text that is not understood is named with its line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from magi_world.language import Interpreter
from magi_world.session.as_script import script_text
from magi_world.session.events import Event, Said, Step
from magi_world.session.player import replay
from magi_world.session.script import read_events, read_script
from tests.tiny import HashText, tiny_parts, tiny_world

SCRIPT = """world: tiny
script:
  - {say: "turn left twice, then walk forward", for: 5}
  - fork: [trun right, "turn left 2 times, then stand still"]
    for: 3
    keep: trun right
  - {for: 2}
"""


def says(events: tuple[Event, ...]) -> list[object]:
    return [e.say for e in events if isinstance(e, Step)]


def test_sentences_are_done_chunk_by_chunk(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(SCRIPT)
    world = tiny_world()
    session = read_script(path).session(world)
    assert says(session.events) == [
        "turn left", None, "walk forward", None, None,
        ("turn right", "turn left"), None, (None, "stand still"), None, None,
    ]  # fmt: skip
    said = [(e.text, e.command, e.world) for e in session.events if isinstance(e, Said)]
    assert said[1:] == [
        ("trun right", "turn right", 0),
        ("turn left 2 times, then stand still", "turn left", 1),
    ]
    assert len(session.lines) == len(session.events)
    prompts = [chunk.prompts for chunk in replay(session, world)]
    assert prompts[-1] == ("turn right",)
    assert prompts[8] == ("turn right", "stand still")
    assert "turn left" in script_text(session, "again")


def test_what_is_not_understood_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("world: tiny\nscript:\n  - say: turn left\n  - say: open the window\n")
    script = read_script(path)
    with pytest.raises(ValueError, match=r"s\.yaml, line 4: 'open the window' is not understood"):
        script.session(tiny_world())
    path.write_text("strict: false\n" + path.read_text())
    session = read_script(path).session(tiny_world())
    assert says(session.events) == ["turn left", "open the window"]
    path.write_text(path.read_text().replace("false", "perhaps"))
    with pytest.raises(ValueError, match="line 1: strict must be true or false"):
        read_script(path)


def test_a_world_without_commands_gets_every_text(tmp_path: Path) -> None:
    spec = replace(tiny_parts().spec, commands=(), default_command=None)
    steps = (Step(1, "a storm, then the calm"), Step(2), Step(3, ("a boat", "a whale")))
    events, _ = read_events(steps[:2], (1, 2), Interpreter(spec, HashText()), "line")
    assert says(events) == ["a storm, then the calm", None]
