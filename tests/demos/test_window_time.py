"""Time in the window: pause, single steps, rewinding, futures, slots."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from magi_world.demos.timeline import first_look, suggested_commands
from magi_world.demos.window import jobs
from magi_world.demos.window.player import PlayerConfig
from magi_world.demos.window.watchers import SessionFile
from magi_world.session.player import Verdict, verify
from magi_world.session.session import read_session
from magi_world.world.spec import Command
from tests.demos.stage import Stage, frame, reference
from tests.tiny import tiny_world


def test_pause_stops_the_picture_and_a_command_then_given_shapes_the_very_next_chunk() -> None:
    stage = Stage()
    player = stage.opened()
    stage.chunk(4)
    stage.until(lambda p: p.playback.ahead is not None)
    player.pause()
    assert player.lands == 5
    shown = frame(player).copy()
    stage.run(3)
    assert np.array_equal(frame(player), shown)
    player.say("turn right")
    player.pause()
    stage.chunk(5)
    assert player.moment.command == "turn right"
    assert np.array_equal(player.moment.frames, reference(["stand still"] * 4 + ["turn right"]))


def test_single_steps_play_one_chunk_each() -> None:
    stage = Stage()
    player = stage.opened()
    stage.chunk(3)
    player.pause()
    for index in (4, 5):
        player.step_once()
        stage.run(3)
        assert player.moment.index == index
        assert player.playback.frame_number == 7
        assert not player.playback.running
    assert len(stage.steps) == 5


def test_rewinding_and_going_on_gives_the_future_of_that_moment() -> None:
    stage = Stage()
    player = stage.opened()
    player.say("walk forward")
    stage.chunk(8)
    player.rewind(3)
    stage.run(2)
    assert player.moment.index == 5
    assert not player.playback.running
    said = [m.command for m in player.playback.timeline._moments[1:6]]
    player.say("turn left")
    player.pause(False)
    stage.chunk(6)
    assert np.array_equal(player.moment.frames, reference([*said, "turn left"]))
    player.rewind(10**9)
    assert player.moment.index == 0
    player.rewind(-(10**9))
    assert player.moment.index == 6


def test_the_ring_keeps_the_newest_chunks() -> None:
    stage = Stage(config=PlayerConfig(ring_chunks=4))
    player = stage.opened()
    stage.chunk(9)
    player.rewind(100)
    assert player.moment.index == 6
    player.rewind(1)
    assert player.notices.shown[-1].text == "this is the oldest chunk that is kept"


def test_futures_are_imagined_side_by_side_and_one_is_kept() -> None:
    stage = Stage()
    player = stage.opened()
    stage.chunk(3)
    player.what_if()
    futures = player.futures
    assert futures is not None
    assert futures.commands == ("turn left", "turn right", "walk forward", "stand still")
    stage.until(lambda p: futures.complete)
    assert len(futures.chunks) == 4
    assert futures.frames.shape == (4, 32, 48, 3)
    futures.select(1)
    player.say("stand still")
    stage.until(lambda p: futures.complete)
    assert futures.commands[1] == "stand still"
    player.keep(1)
    stage.until(lambda p: p.futures is None)
    assert player.moment.index == 7
    assert np.array_equal(player.moment.frames, reference(["stand still"] * 7))
    stage.chunk(8)
    assert np.array_equal(player.moment.frames, reference(["stand still"] * 8))
    player.rewind(2)
    assert player.moment.index == 6


def test_futures_are_not_the_same_thing_said_twice() -> None:
    commands = (
        Command("stand still"),
        Command("turn left", phrases=("look left",)),
        Command("turn right", held_out=("peek right",)),
    )
    spec = replace(tiny_world().spec, commands=commands)
    assert suggested_commands("look left", spec, 3) == ("look left", "turn right", "stand still")
    assert suggested_commands("peek right", spec, 2) == ("peek right", "turn left")
    bare = replace(spec, commands=(), default_command=None)
    assert suggested_commands("jump", bare, 2) == ("jump", "jump")


@pytest.mark.parametrize(("frames", "limit", "looks"), [(8, 32, 4), (1, 32, 16), (1, 12, 12)])
def test_futures_are_as_many_chunks_as_can_be_seen(frames: int, limit: int, looks: int) -> None:
    spec = replace(tiny_world().spec, frames_per_chunk=frames, fps=12)
    assert first_look(spec, limit) == looks


def test_dropping_the_futures_leaves_the_world_where_it_was() -> None:
    stage = Stage()
    player = stage.opened()
    stage.chunk(3)
    player.what_if()
    stage.run(1)
    player.what_if()
    player.pause(False)
    stage.chunk(4)
    assert np.array_equal(player.moment.frames, reference(["stand still"] * 4))


def test_a_slot_comes_back_with_what_was_before_it_and_its_command(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    stage = Stage(watchers=[SessionFile(path)], config=PlayerConfig(slots=tmp_path))
    player = stage.opened()
    player.say("turn left")
    stage.chunk(4)
    player.save(1)
    player.say("walk forward")
    stage.chunk(7)
    player.load(player.slots.path(1), 1)
    stage.until(lambda p: p.moment.index == 4)
    stage.chunk(5)
    assert player.moment.command == "turn left"
    player.rewind(3)
    assert (player.moment.index, player.moment.command) == (2, "turn left")
    player.say("turn right")
    player.pause(False)
    stage.chunk(4)
    player.load(player.slots.path(1), 1)
    stage.until(lambda p: p.moment.index == 4 and p.moment.command == "turn left")
    stage.chunk(5)
    player.close()
    last = list(verify(read_session(path), tiny_world()))[-1]
    assert isinstance(last, Verdict)
    assert last.difference is None


def test_slots_bring_the_moment_back_with_its_picture(tmp_path: Path) -> None:
    stage = Stage(config=PlayerConfig(slots=tmp_path))
    player = stage.opened()
    player.say("turn left")
    stage.chunk(3)
    saved = player.moment.frames
    player.save(2)
    stage.until(lambda p: p.slots.path(2).is_file())
    player.begin(jobs.Start(seed=9))
    stage.until(lambda p: p.moment.seed == 9)
    player.load(player.slots.path(2), 2)
    stage.until(lambda p: p.moment.index == 3)
    assert np.array_equal(player.moment.frames, saved)
    player.slots.path(2).with_suffix(".png").unlink()
    player.load(player.slots.path(2), 2)
    stage.until(lambda p: p.moment.frames is not saved and p.moment.index == 3)
    assert np.abs(player.moment.frames.astype(int) - saved).max() <= 1


def test_a_world_that_nobody_talks_to_rests_until_somebody_does() -> None:
    stage = Stage(config=PlayerConfig(rest=2.0))
    player = stage.opened()
    stage.run(1.8)
    player.say("turn left")
    stage.run(4)
    assert not player.playback.resting
    assert player.moment.command == "turn left"
    player.say("stand still")
    stage.until(lambda p: p.playback.resting)
    assert [n.text for n in player.notices.shown] == [
        "the world rests until somebody says something"
    ]
    stage.run(1)
    index = player.moment.index
    stage.run(3)
    assert player.moment.index == index
    assert not player.playback.running
    player.press("left")
    player.release("left")
    stage.until(lambda p: p.moment.index > index)
    assert player.moment.command == "turn left"
    assert player.playback.running
    stage.until(lambda p: p.playback.resting)
    player.pause()
    assert player.playback.running
    assert not player.playback.resting
