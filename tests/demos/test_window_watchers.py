"""The session file and the film that are written while playing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from magi_world.demos.play import script_agent, script_start
from magi_world.demos.window import jobs
from magi_world.demos.window.player import PlayerConfig
from magi_world.demos.window.watchers import Film, SessionFile
from magi_world.io.media import load_video
from magi_world.session.events import Said
from magi_world.session.minari import episodes
from magi_world.session.player import Verdict, verify
from magi_world.session.script import read_script
from magi_world.session.session import read_session
from tests.demos.stage import Stage
from tests.tiny import tiny_world


def verdict(path: Path) -> Verdict:
    last = list(verify(read_session(path), tiny_world()))[-1]
    assert isinstance(last, Verdict)
    return last


def test_everything_that_can_be_done_in_the_window_replays_to_the_same_bytes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "session.jsonl"
    stage = Stage(watchers=[SessionFile(path)], config=PlayerConfig(slots=tmp_path / "slots"))
    player = stage.opened()
    stage.run(1)
    player.say("turn left")
    stage.run(1)
    player.save(1)
    player.rewind(2)
    player.pause(False)
    stage.run(1)
    player.what_if()
    stage.run(1)
    player.keep(2)
    stage.run(0.2)
    # Into the future that was imagined, and on from there.
    player.rewind(2)
    player.pause(False)
    stage.run(1)
    player.load(player.slots.path(1), 1)
    stage.run(1)
    player.rewind(1)
    player.save(3)
    player.pause(False)
    stage.run(1)
    player.begin(jobs.Start(seed=5, scene="a cellar"))
    stage.run(1)
    player.load(player.slots.path(3), 3)
    stage.run(1)
    assert stage.errors == []
    player.close()
    found = verdict(path)
    assert found.difference is None
    assert found.compared > 15


def test_a_start_image_is_in_the_session(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (60, 60), (20, 200, 90)).save(tmp_path / "green.png")
    path = tmp_path / "session.jsonl"
    stage = Stage(watchers=[SessionFile(path)])
    stage.opened(jobs.Start(image=tmp_path / "green.png"))
    stage.run(1.2)
    stage.player.close()
    assert verdict(path).difference is None


def test_another_world_gets_another_file(tmp_path: Path) -> None:
    stage = Stage(watchers=[SessionFile(tmp_path / "s.jsonl")])
    stage.opened()
    stage.run(1)
    stage.opened(jobs.Start(seed=2))
    stage.run(2)
    stage.player.close()
    assert verdict(tmp_path / "s.jsonl").difference is None
    assert verdict(tmp_path / "s-2.jsonl").compared > 1


def test_the_film_holds_the_frames_that_were_shown(tmp_path: Path) -> None:
    stage = Stage()
    player = stage.opened()
    film = Film(tmp_path / "film.mp4", player.opened.spec, upscale=2)
    player.watchers.append(film)
    stage.chunk(4)
    player.rewind(2)
    player.pause(False)
    stage.chunk(4)
    player.close()
    frames = load_video(tmp_path / "film.mp4")
    # Chunks 1 to 4, and 3 and 4 again.
    assert frames.shape == (6 * 8, 64, 96, 3)
    shown = player.moment.frames[-1].repeat(2, 0).repeat(2, 1).astype(int)
    assert np.abs(frames[-1] - shown).mean() < 40


def test_a_watcher_that_fails_is_shown_and_dropped(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text("somebody else's\n")
    stage = Stage(watchers=[SessionFile(path)])
    player = stage.opened()
    stage.run(1)
    assert "s.jsonl" in stage.errors[0]
    assert player.watchers == []
    assert player.moment.index > 0
    assert path.read_text() == "somebody else's\n"


def script(folder: Path, text: str) -> Path:
    path = folder / "a.yaml"
    path.write_text(text)
    return path


def test_what_was_typed_is_told_with_what_became_of_it(tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    stage = Stage(watchers=[SessionFile(path)])
    player = stage.opened()
    for text in ("trun left twice, then stand still", "open the door"):
        player.say(text)
        stage.run(1)
    for watcher in stage.player.watchers:
        watcher.close()
    said = [e for e in read_session(path).events if isinstance(e, Said)]
    assert [(e.text, e.command, len(e.steps)) for e in said] == [
        ("trun left twice, then stand still", "turn left", 2),
        ("open the door", None, 0),
    ]
    assert said[0].confidence == 0.93
    assert said[1].answer.startswith("this world has no ")
    assert verdict(path).difference is None


def test_a_script_is_somebody_who_can_be_in_charge(tmp_path: Path) -> None:
    made = read_script(
        script(
            tmp_path,
            "world: tiny\nseed: 7\nscene: a cellar\nscript:\n"
            "  - {say: walk forward, for: 2}\n"
            "  - {fork: [turn left, turn right], for: 2, keep: turn right}\n"
            "  - {at: 6, say: stand still}\n",
        )
    )
    assert script_start(made) == jobs.Start(7, "a cellar")
    stage = Stage(agents={"script": script_agent(made)})
    stage.player.hand_to("script")
    stage.opened(script_start(made))
    said = [stage.chunk(index).moment.command for index in range(1, 8)]
    assert said == ["walk forward"] * 2 + ["turn right"] * 3 + ["stand still"] * 2


def test_a_script_that_says_nothing_is_refused(tmp_path: Path) -> None:
    made = read_script(script(tmp_path, "world: tiny\nscript:\n  - {for: 2}\n"))
    with pytest.raises(ValueError, match="says nothing"):
        script_agent(made)


def test_a_slot_saved_again_while_rewound_replays(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    stage = Stage(watchers=[SessionFile(path)], config=PlayerConfig(slots=tmp_path / "slots"))
    player = stage.opened()
    stage.chunk(2)
    player.save(1)
    player.say("turn left")
    stage.chunk(5)
    player.rewind(2)
    player.save(1)
    player.pause(False)
    stage.chunk(5)
    player.load(player.slots.path(1), 1)
    stage.until(lambda p: p.moment is not None and p.moment.index == 3)
    stage.chunk(5)
    assert stage.errors == []
    player.close()
    found = verdict(path)
    assert found.difference is None
    assert found.compared > 9
    session = read_session(path)
    *_, last = episodes(session, tiny_world())
    assert [command for _, command in last.items[1:4]] == [
        "stand still", "stand still", "turn left",
    ]  # fmt: skip


def test_a_slot_that_could_not_be_saved_is_loaded_as_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.jsonl"
    stage = Stage(watchers=[SessionFile(path)], config=PlayerConfig(slots=tmp_path / "slots"))
    player = stage.opened()
    stage.chunk(2)
    player.save(1)
    stage.chunk(4)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("magi_world.world.snapshot.save_tensors", full)
        player.save(1)
        stage.until(lambda p: bool(stage.errors))
    player.load(player.slots.path(1), 1)
    stage.until(lambda p: p.moment is not None and p.moment.index == 2)
    stage.chunk(3)
    player.close()
    assert verdict(path).difference is None
