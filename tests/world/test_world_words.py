"""A world is told sentences; what it still has to do is part of its state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from magi_world.io.package import read_package, read_record, write_package
from magi_world.language import Step
from magi_world.session.events import Said, from_record, to_record
from magi_world.world.snapshot import Snapshot
from magi_world.world.spec import Command
from tests.tiny import tiny_parts, tiny_text, tiny_world

SENTENCE = "turn left twice, then walk forward"


def test_what_was_said_is_done_chunk_by_chunk() -> None:
    world, spelt = tiny_world(), tiny_world()
    world.reset(2), spelt.reset(2)
    (reading,) = world.say(SENTENCE)
    assert reading.steps == (Step("turn left", 2), Step("walk forward"))
    for command in ("turn left", "turn left", "walk forward", "walk forward"):
        said, wanted = world.step(), spelt.step(command)
        assert said.prompts == (command,)
        assert (said.frames == wanted.frames).all()
        assert said.lands == wanted.lands


def test_after_all_is_done_comes_the_default_command() -> None:
    world = tiny_world()
    world.reset(0)
    world.say("turn left twice")
    assert [world.step().prompts[0] for _ in range(3)] == ["turn left", "turn left", "stand still"]
    world.step("turn right")
    assert world.step().prompts == ("turn right",)
    world.say("keep going for 2 chunks")
    assert [world.step().prompts[0] for _ in range(3)] == [
        "turn right",
        "turn right",
        "stand still",
    ]


def test_a_given_command_ends_the_queue_and_a_refusal_does_not() -> None:
    world = tiny_world()
    world.reset(0)
    world.say(SENTENCE)
    assert not world.say("open the door")[0].obeyed
    assert world.queues[0].names == ("turn left", "walk forward")
    world.step("turn right")
    assert world.queues[0].names == ()


def test_the_queue_is_in_snapshots_forks_and_files(tmp_path: Path) -> None:
    world = tiny_world()
    world.reset(0)
    world.say(SENTENCE)
    world.step()
    world.snapshot().save(tmp_path / "s.safetensors")
    (twin,) = world.fork(1)
    wide = world.fork_batch(2)
    wanted = [world.step().prompts[0] for _ in range(2)]
    assert wanted == ["turn left", "walk forward"]
    assert [twin.step().prompts[0] for _ in range(2)] == wanted
    assert wide.step().prompts == ("turn left", "turn left")
    world.restore(Snapshot.load(tmp_path / "s.safetensors"))
    assert [world.step().prompts[0] for _ in range(2)] == wanted


def test_worlds_are_told_one_by_one() -> None:
    world = tiny_world(3)
    world.reset(0)
    readings = world.say(["turn left twice", None, "walk forward"])
    assert [r.command for r in readings] == ["turn left", "walk forward"]
    assert world.step().prompts == ("turn left", "stand still", "walk forward")
    world.say("turn right", worlds=[1])
    world.set_queue(world.queues[0].clear(), world=0)
    assert world.step().prompts == ("stand still", "turn right", "walk forward")


def test_texts_can_be_taken_as_they_are() -> None:
    world = tiny_world()
    world.reset(0)
    world.say("a storm, then turn left", strict=False)
    assert world.step().prompts == ("a storm, then turn left",)


@pytest.mark.parametrize(
    ("text", "message"),
    [(5, "text is 5"), ("a" * 2000, "2,000 characters"), (["turn left"] * 2, "2 entries")],
)
def test_texts_that_cannot_be_are_refused(text: object, message: str) -> None:
    world = tiny_world()
    world.reset(0)
    with pytest.raises(ValueError, match=message):
        world.say(text)  # type: ignore[arg-type]
    assert world.queues[0].names == ()


def test_a_world_that_was_not_reset_cannot_be_told() -> None:
    with pytest.raises(ValueError, match="was not reset"):
        tiny_world().say("turn left")


def test_a_sentence_survives_a_session_file() -> None:
    world = tiny_world()
    world.reset(0)
    said = Said.of(world.say("trun left twice")[0], 1)
    assert from_record(to_record(said)) == said
    for field, bad, message in (
        ("confidence", 2, r"said\.confidence is 2"),
        ("steps", [["turn left"]], r"said\.steps\[0\] has 1 entries; it must have 2"),
        ("steps", "x", r"said\.steps is 'x'"),
        ("world", -1, r"said\.world is -1"),
    ):
        with pytest.raises(ValueError, match=message):
            from_record({**to_record(said), field: bad})


def test_opposites_lengths_and_things_are_in_the_package(tmp_path: Path) -> None:
    parts = tiny_parts()
    first, *others = parts.spec.commands
    left, right = (c for c in others if c.name in ("turn left", "turn right"))
    commands = (
        replace(first, chunks=3),
        replace(left, opposite="turn right"),
        *(c for c in others if c is not left),
    )
    spec = replace(parts.spec, commands=commands, threshold=0.8, things=("caves",))
    write_package(tmp_path, replace(parts, spec=spec, text=tiny_text(tmp_path / "text")))
    assert read_record(tmp_path)["things"] == ["caves"]
    again = read_package(tmp_path).spec
    assert again.commands == commands
    assert (again.threshold, again.things) == (0.8, ("caves",))
    assert right in again.commands


def test_a_spec_that_cannot_be_is_refused() -> None:
    spec = tiny_parts().spec
    with pytest.raises(ValueError, match="opposite of 'up' is 'down'"):
        replace(spec, commands=(Command("up", opposite="down"),), default_command=None)
    with pytest.raises(ValueError, match="threshold is 7"):
        replace(spec, threshold=7)
    with pytest.raises(ValueError, match="chunks of 'up' is 0"):
        Command("up", chunks=0)
