"""The model of playing: pacing, commands and where they land, agents, errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from magi_world.agents import CallableAgent, RandomAgent, ScriptedAgent
from magi_world.demos.window import jobs
from magi_world.demos.window.figures import figures
from magi_world.demos.window.player import PlayerConfig
from magi_world.world import World
from tests.demos.stage import Stage, frame, reference
from tests.tiny import tiny_parts, tiny_world


def test_frames_come_at_the_pace_of_the_world_and_are_the_ones_of_the_world() -> None:
    stage = Stage(seconds=0.1)
    player = stage.opened()
    stage.chunk(2)
    begun = stage.time
    stage.chunk(12)
    assert stage.time - begun == pytest.approx(10 * 0.5, abs=0.03)
    assert player.shown.fps(stage.time) == pytest.approx(16, abs=1)
    assert np.array_equal(player.moment.frames, reference(["stand still"] * 12))


def test_the_next_chunk_is_asked_for_late_and_only_one_ahead() -> None:
    stage = Stage(seconds=0.1)
    player = stage.opened()
    stage.chunk(6)
    begun = stage.time
    stage.until(lambda p: isinstance(p.runner.job, jobs.Step))
    # 0.5 s a chunk, 0.1 s to make one, 10 % and 0.03 s of reserve.
    assert stage.time - begun == pytest.approx(0.5 - 0.14, abs=0.03)
    stage.chunk(7)
    assert len(stage.steps) == 7
    assert player.playback.ahead is None


def test_a_world_that_is_a_little_slow_is_shown_in_even_slow_motion() -> None:
    stage = Stage(seconds=0.8)
    player = stage.opened()
    stage.chunk(5)
    times = []
    for _ in range(40):
        number = player.playback.frame_number
        stage.until(lambda p, n=number: p.playback.frame_number != n)
        times.append(stage.time)
    gaps = np.diff(times)
    assert gaps.max() - gaps.min() <= 0.031
    assert gaps.mean() == pytest.approx(0.8 / 8 * 1.03, rel=0.05)


def test_a_world_that_is_far_too_slow_plays_at_its_pace_and_waits() -> None:
    stage = Stage(seconds=3.0)
    player = stage.opened()
    stage.chunk(4)
    stage.run(0.6)
    assert player.playback.stalled
    assert player.playback.frame_number == 7
    stage.run(1.0)
    assert player.playback.waited == pytest.approx(1.1, abs=0.05)
    stage.chunk(5)
    assert player.playback.waited == 0


def test_a_command_lands_on_the_announced_chunk_and_its_delay_is_measured() -> None:
    stage = Stage(seconds=0.1)
    player = stage.opened()
    stage.chunk(4)
    stage.run(0.1)
    assert player.lands == 5
    player.say("turn left")
    given = stage.time
    assert player.command == "turn left"
    stage.until(lambda p: p.moment.command == "turn left")
    assert (player.moment.index, player.moment.lands) == (5, 5)
    assert player.delay.last == pytest.approx(stage.time - given)
    assert player.delay.last < 0.45
    stage.until(lambda p: isinstance(p.runner.job, jobs.Step))
    assert player.lands == 7
    stage.run(0.12)
    assert player.playback.ahead is not None
    assert player.lands == 7


def test_words_stay_in_force_and_keys_only_while_they_are_held() -> None:
    stage = Stage()
    player = stage.opened()
    player.say("open the door")
    stage.chunk(4)
    assert player.moment.command == "open the door"
    assert player.press("left")
    stage.chunk(6)
    assert player.moment.command == "turn left"
    player.steering.release("left")
    stage.chunk(8)
    assert player.moment.command == "stand still"


def test_a_tap_shapes_exactly_one_chunk() -> None:
    stage = Stage()
    player = stage.opened()
    stage.chunk(3)
    player.press("up")
    player.steering.release("up")
    stage.chunk(6)
    assert [s.command for s in stage.steps[3:6]] == ["walk forward", "stand still", "stand still"]


def test_handing_over_and_back() -> None:
    agents = {"script": ScriptedAgent({5: "turn right"}), "random": RandomAgent()}
    stage = Stage(agents=agents)
    player = stage.opened()
    stage.chunk(3)
    player.hand_over()
    assert player.controllers.name == "script"
    stage.chunk(6)
    assert (player.moment.command, player.moment.by) == ("turn right", "script")
    player.hand_over()
    stage.chunk(12)
    assert player.moment.by == "random"
    player.press("left")
    assert player.controllers.name == "human"
    stage.chunk(14)
    assert (player.moment.command, player.moment.by) == ("turn left", "human")


def test_an_agent_that_fails_is_shown_and_relieved() -> None:
    def broken(observation: np.ndarray, info: object) -> str:
        raise ValueError("the policy file is empty")

    stage = Stage(agents={"broken": CallableAgent(broken)})
    player = stage.opened()
    stage.chunk(2)
    player.hand_over()
    stage.chunk(5)
    assert "the policy file is empty" in stage.errors
    assert player.controllers.name == "human"


def test_a_bad_command_is_shown_and_the_play_goes_on() -> None:
    stage = Stage()
    player = stage.opened()
    stage.chunk(2)
    player.say("x" * 5000)
    stage.chunk(5)
    assert "5,000 characters" in stage.errors[0]
    assert player.moment.command == "stand still"


def test_a_world_that_fails_twice_waits_for_the_person(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    player = stage.opened()
    stage.chunk(2)

    def fail(*args: object) -> None:
        raise ValueError("the device is gone")

    monkeypatch.setattr(World, "step", fail)
    stage.until(lambda p: p.playback.paused)
    assert stage.errors == ["the device is gone"]
    monkeypatch.undo()
    player.pause(False)
    stage.chunk(4)


def test_a_world_that_cannot_be_opened_leaves_the_old_one() -> None:
    def load(name: str) -> World:
        if name == "tiny":
            return tiny_world()
        raise ValueError(f"there is no world {name!r}")

    stage = Stage(load=load)
    player = stage.opened()
    player.open(jobs.Open("huge"))
    stage.chunk(3)
    assert stage.errors == ["there is no world 'huge'"]
    player.open(jobs.Open("tiny", jobs.Start(seed=4)))
    stage.until(lambda p: p.moment.seed == 4)


def test_a_batch_of_worlds_is_refused() -> None:
    stage = Stage()
    stage.player.open(jobs.Open(tiny_world(2)))
    stage.run(0.5)
    assert "num_worlds 2" in stage.errors[0]


def test_a_fresh_seed_is_known_afterwards_and_scene_and_image_begin_anew(tmp_path: Path) -> None:
    from PIL import Image

    stage = Stage()
    player = stage.opened()
    player.begin(jobs.Start(seed=None))
    stage.until(lambda p: p.start.seed != 0)
    assert player.start.seed == player.moment.seed
    player.begin(jobs.Start(seed=3, scene="a cellar"))
    stage.until(lambda p: p.moment.scene == "a cellar")
    Image.new("RGB", (200, 100), (200, 10, 10)).save(tmp_path / "red.png")
    player.begin(jobs.Start(seed=3, image=tmp_path / "red.png"))
    stage.until(lambda p: p.start.image is not None)
    assert np.all(frame(player) == (200, 10, 10))
    player.begin(jobs.Start(image=tmp_path / "missing.png"))
    stage.chunk(3)
    assert "missing.png" in stage.errors[0]


def test_a_larger_window_tells_where_queued_commands_land() -> None:
    def load(name: str) -> World:
        return World(tiny_parts(window_size=2))

    stage = Stage(load=load, config=PlayerConfig(steer="queue"))
    player = stage.opened()
    stage.chunk(3)
    expected = player.lands
    player.say("turn left")
    stage.until(lambda p: p.moment.command == "turn left")
    assert player.moment.lands == expected
    assert expected == player.moment.index + 1


def test_the_figures_say_what_is_measured() -> None:
    stage = Stage(seconds=0.1)
    assert figures(stage.player) == []
    player = stage.opened()
    stage.chunk(8)
    stage.until(lambda p: isinstance(p.runner.job, jobs.Step))
    pace, chunk, world = (dict(rows) for _, rows in figures(player))
    assert pace["generated"] == "80.0 fps"
    assert pace["chunk p50"] == pace["chunk p95"] == "100 ms"
    assert float(pace["shown"].removesuffix(" fps")) == pytest.approx(16, abs=1)
    assert pace["command to picture"] == "-"
    assert (chunk["shown"], chunk["denoising"]) == ("8", "0 / 4")
    assert chunk["next one"] == "being made"
    assert (world["seed"], world["device"], world["rewind"]) == ("0", "cpu", "8 of 8")
