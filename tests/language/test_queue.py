"""A queue of commands never changes, empties chunk by chunk, and survives JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magi_world.language import CommandQueue, Reading, Step, understood

STEPS = st.lists(
    st.builds(Step, st.sampled_from(("left", "right", "on")), st.integers(1, 5)), max_size=5
)


def said(*steps: Step) -> Reading:
    return Reading("text", steps[0].command if steps else None, 1.0, steps, "")


def played(queue: CommandQueue, chunks: int) -> list[str | None]:
    commands = []
    for _ in range(chunks):
        command, queue = queue.next()
        commands.append(command)
    return commands


@given(STEPS, st.integers(0, 3))
def test_every_step_lasts_as_long_as_it_says(steps: list[Step], more: int) -> None:
    queue = CommandQueue(rest="wait").say(said(*steps))
    meant = [s.command for s in steps for _ in range(s.chunks or 0)]
    assert played(queue, len(meant) + more) == meant + ["wait"] * more


@given(STEPS, st.integers(0, 12))
def test_what_is_to_come_is_what_comes(steps: list[Step], chunks: int) -> None:
    queue = CommandQueue(rest="wait").say(said(*steps))
    for _ in range(chunks):
        _, queue = queue.next()
    left = sum(s.chunks or 0 for s in queue.to_come)
    assert left == max(0, sum(s.chunks or 0 for s in steps) - chunks)
    assert played(queue, left) == [s.command for s in queue.to_come for _ in range(s.chunks or 0)]
    again = CommandQueue.from_record(json.loads(json.dumps(queue.to_record())))
    assert again == queue


def test_an_open_step_goes_on_and_without_rest_the_world_does() -> None:
    queue = CommandQueue().say(said(Step("left", 1), Step("on")))
    assert played(queue, 4) == ["left", "on", "on", "on"]
    assert played(CommandQueue().say(said(Step("left", 1))), 3) == ["left", None, None]


def test_what_is_not_understood_changes_nothing() -> None:
    queue = CommandQueue().say(said(Step("left", 3)))
    assert queue.say(said()) is queue


def test_chips_can_be_dropped_and_edited() -> None:
    _, queue = CommandQueue().say(said(Step("left", 3), Step("on", 2), Step("right"))).next()
    assert [str(s) for s in queue.to_come] == ["left (2 chunks)", "on (2 chunks)", "right"]
    assert played(queue.drop(0), 3) == ["on", "on", "right"]
    assert played(queue.edit(1, Step("right", 1)), 4) == ["left", "left", "right", "right"]
    assert queue.clear().names == ()
    with pytest.raises(ValueError, match="index is 3"):
        queue.drop(3)


def test_understood_has_the_names_still_to_come() -> None:
    reading = said(Step("left", 1), Step("on", 2), Step("right"))
    _, queue = CommandQueue().say(reading).next()
    told = understood(reading, queue)
    assert told == {"command": "left", "confidence": 1.0, "queue": ["on", "right"]}


@pytest.mark.parametrize("chunks", [0, -1, 10**9])
def test_a_step_lasts_at_least_a_chunk(chunks: int) -> None:
    with pytest.raises(ValueError, match=r"Step\.chunks"):
        Step("left", chunks)
