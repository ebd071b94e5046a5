"""Scripts: what they mean, and the line that is named when they are wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from magi_world.demos.commands.record import SCRIPTS
from magi_world.session.as_script import script_text
from magi_world.session.events import Fork, Keep, Note, Reset, Rewind, Save, StartFile, Step
from magi_world.session.player import replay
from magi_world.session.script import read_script
from magi_world.session.session import SessionWriter, read_session
from magi_world.training.settings import read_settings
from magi_world.world.start import best_start
from tests.tiny import tiny_world

SHIPPED = sorted(SCRIPTS.glob("*.yaml"))
CONFIGS = Path(__file__).parents[2] / "configs"


def written(folder: Path, text: str) -> Path:
    path = folder / "a.yaml"
    path.write_text(text, "utf-8")
    return path


def says(path: Path) -> list[object]:
    return [event.say for event in read_script(path).events if isinstance(event, Step)]


def test_a_whole_script(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """# a comment
title: There and back
world: tiny
seed: 7
start: 2
scene: a  cellar
num_steps: 8
window_size: 2
frame_size: [64, 96]
script:
  - say: walk forward   # and another
    for: 2
  - {at: 5, say: turn left, note: now}
  - repeat: 2
    do:
      - {say: yes, steer: queue}
  - fork: [turn left, turn right]
    for: 2
    keep: turn right
length: 10
""",
    )
    script = read_script(path)
    assert (script.title, script.world, script.chunks) == ("There and back", "tiny", 11)
    assert (script.num_steps, script.window_size, script.frame_size) == (8, 2, (64, 96))
    assert script.events == (
        Reset((7,), "a cellar", 2),
        Note("There and back"),
        Step(1, "walk forward"),
        Step(2),
        Step(3),
        Step(4),
        Note("now"),
        Step(5, "turn left"),
        Step(6, "yes", "queue"),
        Step(7, "yes", "queue"),
        Fork(2),
        Step(8, ("turn left", "turn right")),
        Step(9),
        Keep(1),
        Step(10),
    )
    assert script.lines == (3, 2, 11, 11, 13, 13, 13, 13, 16, 16, 17, 17, 17, 19, 20)


def test_defaults(tmp_path: Path) -> None:
    path = written(tmp_path, "world: tiny\nscript:\n- say: turn left\n- for: 2\n- at: 6\n")
    script = read_script(path)
    assert script.title == "a"
    assert script.events[0] == Reset((0,))
    assert says(path) == ["turn left", None, None, None, None]


def test_a_start_file_is_hashed(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"picture")
    path = written(tmp_path, "world: tiny\nstart: {image: b.png}\nscript:\n- say: turn left\n")
    expected = StartFile("image", "b.png", hashlib.sha256(b"picture").hexdigest())
    assert read_script(path).events[0] == Reset((0,), start=expected)
    (tmp_path / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"line 2: .*b\.png does not exist"):
        read_script(path)


TOP = "world: tiny\nscript:\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (TOP + "- {sya: turn left}\n", 3, "unknown key 'sya'; an entry has say, at, for"),
        (
            TOP + "- say: turn left\n  for: many\n",
            4,
            "for must be a whole number from 1 on, not 'm",
        ),
        (TOP + "- {say: turn left, for: 0}\n", 3, "for must be a whole number from 1 on, not '0'"),
        (
            TOP + "- {say: x, for: 3}\n- {at: 2, say: y}\n",
            4,
            "at is 2, but chunk 3 was made before",
        ),
        (TOP + "- say:\n", 3, "say must be a text, not nothing"),
        (TOP + "- say: [a, b]\n", 3, "say must be a text, not a list"),
        (TOP + "- {say: x, keep: x}\n", 3, "'keep' does not go with 'say'"),
        (TOP + "- {do: [{say: x}]}\n", 3, "an entry needs one of say, fork, repeat"),
        (TOP + "- repeat: 2\n", 3, "repeat needs do"),
        (TOP + "- {fork: [x]}\n", 3, "a fork needs 2 to 16 commands"),
        (TOP + "- fork: [x, y]\n  keep: z\n", 4, "keep is 'z'; it must be one of ('x', 'y')"),
        (TOP + "- turn left\n", 3, "an entry must be keys and values, not 'turn left'"),
        (TOP + "- {say: x, steer: later}\n", 3, "steer must be now or queue, not 'later'"),
        (TOP + "- {note: nothing happens}\n", 1, "the script makes no chunk"),
        (TOP + "- {say: x, for: 3}\nlength: 2\n", 4, "length is 2, but chunk 3 is used"),
        (TOP + "- {say: x, for: 100001}\n", 3, "more than 100,000 chunks"),
        (TOP + "- &a {say: x}\n- *a\n", 3, "anchors and aliases are not supported"),
        (TOP + "- {say: x\n", 4, "not valid YAML"),
        (TOP + "- {}\n", 3, "an entry needs one of"),
        ("world: tiny\nscript: []\n", 2, "the list is empty"),
        ("world: tiny\n", 1, "a script needs a script"),
        ("script: [{say: x}]\n", 1, "a script needs a world"),
        ("world: a\nworld: b\nscript: []\n", 2, "'world' is there twice"),
        ("world: a\nstart: soon\nscript: []\n", 2, 'start must be a whole number from 0 on or "t'),
        ("world: a\nseed: -1\nscript: []\n", 2, "seed must be a whole number from 0 on, not '-1'"),
        ("world: a\nframe_size: [1]\nscript: []\n", 2, "frame_size must be [height, width]"),
        ("just words\n", 1, "a script must be keys and values"),
        ("a: b: c\n", 1, "not valid YAML: mapping values are not allowed here"),
    ],
)
def test_mistakes_are_pointed_at(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match="line") as error:
        read_script(path)
    assert f"{path}, line {line}: {message}" in str(error.value)


def test_no_script_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is empty"):
        read_script(written(tmp_path, "# only a comment\n"))
    with pytest.raises(FileNotFoundError):
        read_script(tmp_path / "none.yaml")
    path = tmp_path / "b.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_script(path)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_scripts_are_right(path: Path) -> None:
    script = read_script(path)
    assert script.chunks > 10
    if script.world.startswith("magi-1"):
        return
    names = read_settings(CONFIGS / f"{script.world}.yaml").commands
    for event in script.events:
        if isinstance(event, Step) and isinstance(event.say, str):
            assert event.say in names


def test_six_scripts_are_shipped() -> None:
    assert len(SHIPPED) >= 6
    worlds = {read_script(path).world for path in SHIPPED}
    assert worlds == {"courtyard", "magi-1-4.5b-distill"}


def test_a_mistake_during_the_performance_names_the_line(tmp_path: Path) -> None:
    path = written(tmp_path, "world: tiny\nstart: 9\nscript:\n- say: turn left\n")
    world = tiny_world()
    with pytest.raises(ValueError, match=r"a\.yaml, line 1: start is 9; it must be 'text' or 0"):
        list(replay(read_script(path).session(world), world))


def test_a_start_that_another_world_lacks_becomes_its_best(tmp_path: Path) -> None:
    path = written(tmp_path, "world: large\nstart: 46\nscript:\n- say: turn left\n")
    world = tiny_world()
    script, told = read_script(path).fitting(world)
    assert script.events[0].start == best_start(world.parts)
    assert "3 start videos, not number 46" in told
    assert len(list(replay(script.session(world), world))) == 2
    same, told = read_script(written(tmp_path, "world: a\nstart: 2\nscript:\n- say: b\n")).fitting(
        world
    )
    assert (same.events[0].start, told) == (2, "")


def test_notes_of_a_session_are_in_its_script(tmp_path: Path) -> None:
    world = tiny_world()
    with SessionWriter(tmp_path / "n.jsonl", world) as writer:
        writer.reset(world.reset(seed=4, start=1), world.seeds, start=1)
        writer.write(Note("a title"))
        writer.write(Note("everything is generated"))
        for command in ("turn left", "turn left", "turn left"):
            writer.step(world.step(command))
        writer.write(Note("now we turn"))
        writer.step(world.step("turn right"))
    text = script_text(read_session(tmp_path / "n.jsonl"), "Again")
    script = read_script(written(tmp_path, text))
    heard = [(e.text if isinstance(e, Note) else e.chunk) for e in script.events[2:]]
    assert heard == ["a title", "everything is generated", 1, 2, 3, "now we turn", 4]


def test_a_session_as_a_script(tmp_path: Path) -> None:
    world = tiny_world()
    frames = []
    with SessionWriter(tmp_path / "a.jsonl", world) as writer:
        writer.reset(world.reset(seed=4, start=1), world.seeds, start=1)
        for command in ("turn left", "turn left", "größer: #1", None):
            chunk = world.step(command)
            writer.step(chunk)
            frames.append(chunk.frames)
        kept = world.snapshot()
        writer.write(Save("a"))
        writer.step(world.step("walk forward"))
        writer.write(Rewind(4))
        world.restore(kept)
        writer.write(Fork(2))
        wide = world.fork_batch(2)
        writer.step(wide.step(["turn right", "walk forward"]))
        writer.write(Keep(1))
        world.restore(wide.snapshot(), worlds=[0], row=1)
        chunk = world.step("stand still")
        writer.step(chunk)
        frames.append(chunk.frames)
    text = script_text(read_session(tmp_path / "a.jsonl"), "Again")
    path = written(tmp_path, text)
    assert says(path) == ["turn left", None, "größer: #1", None, "walk forward", "stand still"]
    again = [c.frames for c in replay(read_script(path).session(world), tiny_world())]
    assert all((a == b).all() for a, b in zip(again[1:5], frames, strict=False))
    assert (again[-1] == frames[-1]).all()
