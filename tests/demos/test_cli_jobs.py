"""The commands that only hand on: play, train-world, eval-world."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from magi_world.demos import cli, doctor
from magi_world.io.media import load_video

pytestmark = pytest.mark.usefixtures("shop")


def run(*arguments: str) -> int:
    return cli.main(arguments)


def test_play_hands_everything_on(monkeypatch: pytest.MonkeyPatch, shop: Path) -> None:
    from magi_world.demos import play as play_module

    told: list[tuple[object, ...]] = []
    monkeypatch.setattr(play_module, "play", lambda *given: told.append(given) or 0)
    Path("mine.py").write_text("def act(observation, info):\n    return 'turn left'\n")
    line = (
        "play tiny --seed random --scene cellar --start text --script a.yaml --agent mine:act "
        "--record b.mp4 --no-session --folder out --steer queue --scale 4 --hud --steps 8 "
        "--max-seconds 2.5 --device cpu"
    )
    assert run(*line.split()) == 0
    ((world, config, agents, load),) = told
    assert world == "tiny"
    assert config == play_module.PlayConfig(
        seed=None,
        scene="cellar",
        start="text",
        script=Path("a.yaml"),
        record=Path("b.mp4"),
        keep_session=False,
        folder=Path("out"),
        steer="queue",
        scale=4,
        max_seconds=2.5,
        hud=True,
    )
    assert agents["mine:act"].act(None, {}) == "turn left"  # type: ignore[attr-defined, index]
    assert load("tiny").parts.config.sampler.num_steps == 8  # type: ignore[operator]


def test_play_without_a_display_records_instead(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shop: Path
) -> None:
    monkeypatch.setattr(doctor, "display", lambda: doctor.Finding("display", "note", "none"))
    scripts = shop / "scripts"
    scripts.mkdir()
    (scripts / "tour.yaml").write_text(Path("a.yaml").read_text())
    monkeypatch.setattr("magi_world.demos.commands.record.SCRIPTS", scripts)
    for _ in range(2):  # a second time replaces it
        assert run("play", "--else-record", "tour.mp4") == 0
        told = capsys.readouterr().out
        assert "there is no display, so this records a tour" in told
        assert f"wrote {shop / 'tour.mp4'}" in told
        assert len(load_video("tour.mp4")) == 40


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing:act", "No module named 'nothing'"),
        ("json:nothing", "has no attribute 'nothing'"),
        ("json", "or 'package.module:thing'"),
        ("json:__name__", "must have act(observation, info)"),
    ],
)
def test_what_is_no_agent(name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("play", "tiny", "--agent", name) == 2
    assert message in capsys.readouterr().err


def test_training_and_its_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = pytest.importorskip("magi_world.training.train")
    from magi_world.demos.commands.worlds import TrainWorld
    from magi_world.training.loop import Stopped

    # The checks and the rehearsal in front of it have tests of their own.
    monkeypatch.setattr(TrainWorld, "_checked", lambda self, device: (self.config, 0))
    told: list[tuple[object, ...]] = []
    monkeypatch.setattr(train, "train_world", lambda *given: told.append(given) or Path("w"))
    assert run("train-world", "configs/arena.yaml", "--device", "cpu") == 0
    assert told == [(Path("configs/arena.yaml"), Path("runs/arena"), "cpu", True, None)]
    assert run("train-world", "arena.yaml", "--run", "x", "--no-resume", "--from", "other") == 0
    assert told[1] == (Path("arena.yaml"), Path("x"), None, False, "other")
    assert capsys.readouterr().out == "w   (magi-world play w)\n" * 2

    def stopped(*_: object) -> None:
        raise Stopped

    monkeypatch.setattr(train, "train_world", stopped)
    assert run("train-world", "arena.yaml", "--run", "x") == 130
    assert "the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(train, "evaluate_world", lambda *_: {"psnr": {"1": 21.23456}, "n": 3})
    assert run("eval-world", "arena.yaml") == 0
    assert capsys.readouterr().out == "psnr:\n  1: 21.23\nn: 3\n"
    assert run("eval-world", "arena.yaml", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"psnr": {"1": 21.23456}, "n": 3}


def test_training_without_its_packages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "magi_world.training.train", None)
    assert run("train-world", "arena.yaml") == 2
    assert 'pip install "magi-world[train]"' in capsys.readouterr().err
