"""The model of playing: pacing, commands and where they land, agents, errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from magi_world.agents import CallableAgent, RandomAgent, ScriptedAgent
from magi_world.demos.window import jobs
from magi_world.demos.window.panels import figures
from magi_world.demos.window.player import PlayerConfig
from magi_world.language import Step
from magi_world.model.heads import Heads, HeadsConfig
from magi_world.world.world import World
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


def test_a_command_is_seen_at_the_next_latent_frame_after_its_chunk_is_made() -> None:
    stage = Stage(seconds=0.05)
    player = stage.opened()
    stage.chunk(5)
    # A chunk is two latent frames of a quarter of a second: 0.05 s to make one, then at 0.25 s.
    stage.run(0.1)
    player.say("turn left")
    given = stage.time
    stage.chunk(6)
    assert stage.time - given == pytest.approx(0.15, abs=0.02)
    assert player.moment.command == "turn left"
    # Nobody said anything new: the next chunk is shown from end to end.
    begun = stage.time
    stage.chunk(7)
    assert stage.time - begun == pytest.approx(0.5, abs=0.02)


def test_a_chunk_that_was_made_before_the_command_is_made_again_if_that_is_quick() -> None:
    stage = Stage(seconds=0.05)
    player = stage.opened()
    stage.chunk(5)
    stage.until(lambda p: p.playback.ahead is not None)
    player.press("left")
    given = stage.time
    stage.chunk(6)
    assert player.moment.command == "turn left"
    assert stage.time - given < 0.25
    assert player.delay.last == pytest.approx(stage.time - given)


def test_in_a_slow_world_a_late_command_waits_for_the_chunk_that_is_under_way() -> None:
    stage = Stage(seconds=0.45)
    player = stage.opened()
    stage.chunk(6)
    stage.until(lambda p: isinstance(p.runner.job, jobs.Step))
    stage.run(0.2)
    assert player.lands == 8
    player.say("turn left")
    stage.chunk(7)
    assert player.moment.command == "stand still"
    stage.chunk(8)
    assert player.moment.command == "turn left"


def test_a_key_that_is_let_go_ends_what_it_asked_for() -> None:
    stage = Stage(seconds=0.05)
    player = stage.opened()
    stage.chunk(3)
    player.press("left")
    stage.until(lambda p: p.moment.command == "turn left")
    stage.run(0.05)
    player.release("left")
    given = stage.time
    stage.until(lambda p: p.moment.command == "stand still")
    assert stage.time - given < 0.25


def test_pressing_keys_all_the_time_never_stops_the_picture() -> None:
    stage = Stage(seconds=0.1)
    player = stage.opened()
    stage.chunk(4)
    for turn in range(60):
        key = ("left", "right")[turn % 2]
        player.press(key)
        stage.run(0.03)
        player.release(key)
        stage.run(0.02)
    assert player.moment.index >= 4 + 4


def test_words_stay_in_force_and_keys_only_while_they_are_held() -> None:
    stage = Stage()
    player = stage.opened()
    player.say("Walk forward!")
    stage.chunk(4)
    assert player.moment.command == "walk forward"
    assert player.press("left")
    stage.chunk(6)
    assert player.moment.command == "turn left"
    player.release("left")
    stage.chunk(8)
    assert player.moment.command == "stand still"


def test_a_tap_shapes_exactly_one_chunk() -> None:
    stage = Stage()
    player = stage.opened()
    stage.chunk(3)
    player.press("up")
    player.release("up")
    stage.chunk(6)
    assert [s.command for s in stage.steps[3:6]] == ["walk forward", "stand still", "stand still"]


def test_several_commands_wait_for_their_turn_and_can_be_changed_and_dropped() -> None:
    stage = Stage()
    player = stage.opened()
    stage.chunk(2)
    steps = [Step("turn left", 2), Step("turn right", 1), Step("walk forward", None)]
    player.enqueue(steps)
    stage.chunk(3)
    assert player.moment.command == "turn left"
    assert [(q.command, q.chunks) for q in player.steering.queue] == [
        ("turn left", 1),
        ("turn right", 1),
        ("walk forward", None),
    ]
    player.edit_queue(1, ())
    stage.chunk(7)
    said = [m.command for m in player.playback.timeline.moments[3:]]
    assert said == ["turn left", "turn left", "walk forward", "walk forward", "walk forward"]
    player.enqueue([Step("turn left", 3), Step("stand still", None)])
    stage.chunk(8)
    player.press("right")
    assert player.steering.queue == ()


def test_a_queue_loses_nothing_when_the_chunk_ahead_is_thrown_away() -> None:
    stage = Stage()
    player = stage.opened()
    stage.chunk(2)
    player.enqueue([Step("turn left", 2), Step("turn right", None)])
    stage.until(lambda p: p.playback.ahead is not None)
    player.what_if()
    player.what_if()
    player.pause(False)
    stage.chunk(5)
    said = [m.command for m in player.playback.timeline.moments[3:]]
    assert said == ["turn left", "turn left", "turn right"]


def test_an_agent_shows_what_it_will_say_before_it_is_seen() -> None:
    stage = Stage(agents={"script": ScriptedAgent({6: "turn right"})})
    player = stage.opened()
    stage.chunk(3)
    player.hand_over()
    stage.chunk(5)
    stage.run(0.15)
    assert (player.moment.index, player.command) == (5, "turn right")
    assert player.moment.command != "turn right"
    stage.chunk(6)
    assert player.moment.command == "turn right"


def test_agents_are_offered_in_worlds_whose_commands_they_know() -> None:
    class Policy(ScriptedAgent):
        def __init__(self, *commands: str) -> None:
            super().__init__({1: commands[0]})
            self.record = SimpleNamespace(commands=commands)

    agents = {"driver": Policy("steer left"), "walker": Policy("turn left", "walk forward")}
    stage = Stage(agents={"random": RandomAgent(), **agents})
    assert stage.opened().controllers.names == ("human", "walker", "random")


def test_what_the_heads_see_is_counted_and_goes_back_with_time() -> None:
    parts = tiny_parts()
    config = HeadsConfig(8, 2, (4, 6), ("star", "fall"), (2.0, -1.0), end="fall")
    heads = Heads(config)
    heads.fc2.weight.data.zero_()
    heads.fc2.bias.data = torch.tensor([5.0, -5.0])
    stage = Stage(load=lambda name: World(replace(parts, heads=heads)))
    player = stage.opened()
    stage.chunk(3)
    assert (player.moment.score.counts, player.moment.score.points) == ({"star": 3, "fall": 0}, 6)
    assert player.flashes.current(stage.time)[-1][0] == "star"
    player.rewind(2)
    assert player.moment.score.points == 2
    player.what_if()
    stage.until(lambda p: p.futures.complete)
    player.keep(0)
    stage.until(lambda p: p.futures is None)
    assert player.moment.score.counts["star"] == 5


def test_handing_over_and_back() -> None:
    agents = {"script": ScriptedAgent({5: "turn right"}), "random": RandomAgent()}
    stage = Stage(agents=agents)
    player = stage.opened()
    stage.chunk(3)
    player.hand_over()
    assert player.controllers.name == "script"
    stage.chunk(6)
    assert player.moment.command == "turn right"
    player.hand_over()
    stage.chunk(12)
    assert player.controllers.name == "random"
    player.press("left")
    assert player.controllers.name == "human"
    stage.chunk(14)
    assert (player.moment.command, player.controllers.name) == ("turn left", "human")


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


def test_what_is_not_understood_is_answered_and_changes_nothing() -> None:
    stage = Stage()
    player = stage.opened()
    stage.chunk(2)
    player.say("turn left")
    stage.chunk(3)
    for text in ("make it night", "do not turn right", "x" * 5000, "?!"):
        player.say(text)
        assert player.reading is not None
        assert not player.reading.obeyed
        assert player.notices.shown[-1].level == "refused"
        assert len(player.notices.shown[-1].text) <= 300
    stage.chunk(5)
    assert player.moment.command == "turn left"
    assert "stand still, turn left" in player.read("make it night").answer


def test_a_sentence_becomes_steps_that_are_done_one_after_the_other() -> None:
    stage = Stage()
    player = stage.opened()
    stage.chunk(2)
    player.say("turn lfet twice, then walk forward for 3 chunks, then stand still")
    assert player.reading.confidence < 1
    assert [(s.command, s.chunks) for s in player.steering.queue] == [
        ("turn left", 2),
        ("walk forward", 3),
        ("stand still", None),
    ]
    stage.chunk(8)
    said = [m.command for m in player.playback.timeline.moments[3:]]
    assert said == ["turn left"] * 2 + ["walk forward"] * 3 + ["stand still"]
    player.say("turn right")
    stage.chunk(9)
    player.say("again for 2 chunks")
    assert [(s.command, s.chunks) for s in player.steering.queue] == [("turn right", 2)]


def test_a_world_without_commands_takes_every_sentence() -> None:
    parts = tiny_parts()
    bare = replace(parts, spec=replace(parts.spec, commands=(), default_command=None))
    stage = Stage(load=lambda name: World(bare))
    player = stage.opened()
    stage.chunk(2)
    player.say("a storm comes up, then it clears")
    stage.chunk(4)
    assert player.moment.command == "a storm comes up, then it clears"


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
