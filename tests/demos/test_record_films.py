"""Recordings: the same film each time, playable when stopped, the same when resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from magi_world.demos.record import RecordConfig, Recording, record
from magi_world.demos.render import PictureConfig
from magi_world.interrupts import clean_stop
from magi_world.io.media import load_video
from magi_world.session.player import Verdict, verify
from magi_world.session.script import read_script
from magi_world.session.session import read_session
from magi_world.world.world import World
from tests.tiny import tiny_world

SCRIPT = """
title: Test
world: tiny
seed: 3
script:
  - {say: turn left, for: 2}
  - fork: [turn left, turn right, walk forward]
    for: 2
    keep: turn right
    note: three ways
  - {say: walk forward, for: 3}
"""
QUIET = RecordConfig(quiet=True, picture=PictureConfig(upscale=2))


def recorded(
    folder: Path, name: str = "a.mp4", config: RecordConfig = QUIET, world: World | None = None
) -> Recording:
    path = folder / "a.yaml"
    path.write_text(SCRIPT)
    world = world or tiny_world()
    return record(read_script(path).session(world), world, [folder / name], config)


def test_a_film_and_its_session(tmp_path: Path) -> None:
    made = recorded(tmp_path)
    assert made.finished
    assert (made.chunks, made.frames, made.size) == (8, 64, (64, 96))
    assert made.video_seconds == 4.0
    assert load_video(tmp_path / "a.mp4").shape == (64, 64, 96, 3)
    session = read_session(tmp_path / "a.session.jsonl")
    *_, verdict = verify(session, tiny_world())
    assert verdict == Verdict(8, None, ())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "a.session.jsonl", "a.yaml"]


def test_the_same_bytes_again(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        recorded(tmp_path, name)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    one, two = (tmp_path / f"{n}.session.jsonl" for n in "ab")
    assert one.read_bytes() == two.read_bytes()


def test_a_recorded_session_gives_the_film_again(tmp_path: Path) -> None:
    recorded(tmp_path)
    world = tiny_world()
    record(read_session(tmp_path / "a.session.jsonl"), world, [tmp_path / "b.mp4"], QUIET)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_other_steps_give_another_film(tmp_path: Path) -> None:
    recorded(tmp_path)
    session = read_session(tmp_path / "a.session.jsonl")
    made = record(session, tiny_world(num_steps=8), [tmp_path / "b.mp4"], QUIET)
    assert made.frames == 64
    assert (tmp_path / "a.mp4").read_bytes() != (tmp_path / "b.mp4").read_bytes()


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"dear")
    with pytest.raises(FileExistsError, match="give --overwrite"):
        recorded(tmp_path)
    assert (tmp_path / "a.mp4").read_bytes() == b"dear"
    assert recorded(tmp_path, config=RecordConfig(overwrite=True, quiet=True)).finished


@pytest.mark.parametrize("name", ["a.avi", "a"])
def test_unknown_endings(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"must end in \.mp4, \.gif, \.png"):
        recorded(tmp_path, name)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts denoised chunks in its first entry; at the count of its second, Ctrl-C is pressed."""
    count, compute = [0, -1], World._compute

    def counted(world: World, *args: object) -> object:
        if count[0] + 1 == count[1]:
            os.kill(os.getpid(), signal.SIGINT)
        made = compute(world, *args)
        count[0] += 1
        return made

    monkeypatch.setattr(World, "_compute", counted)
    return count


@pytest.mark.parametrize("stop", range(1, 8))
def test_a_stopped_film_is_resumed_to_the_same_bytes(
    tmp_path: Path, steps: list[int], stop: int
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    recorded(whole)
    steps[:] = [0, stop]
    made = recorded(tmp_path)
    assert (made.finished, made.chunks, steps[0]) == (False, stop, stop - 1)
    assert len(load_video(tmp_path / "a.mp4")) == 8 * stop
    assert len(read_session(tmp_path / "a.session.jsonl").events) >= stop
    steps[1] = -1
    again = recorded(tmp_path, config=replace(QUIET, resume=True))
    assert again.finished
    for name in ("a.mp4", "a.session.jsonl"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    # Only the first half of a fork is made twice: futures are not kept.
    assert steps[0] == (8 if stop == 4 else 7)
    assert not (tmp_path / "a.mp4.resume").exists()


@pytest.mark.slow
def test_after_a_kill_the_film_plays_and_is_resumed(tmp_path: Path) -> None:
    text = SCRIPT.replace("for: 3", "for: 40")
    whole = tmp_path / "whole"
    whole.mkdir()
    (tmp_path / "a.yaml").write_text(text)
    world = tiny_world()
    session = read_script(tmp_path / "a.yaml").session(world)
    record(session, world, [whole / "a.mp4"], QUIET)
    program = f"""
        import time, torch
        from pathlib import Path
        from tests.tiny import tiny_world
        from magi_world.demos import resume
        from magi_world.interrupts import clean_stop
        from magi_world.demos.record import RecordConfig, record
        from magi_world.session.script import read_script
        from magi_world.demos.render import PictureConfig
        from magi_world.world.world import World
        resume.STATE_EVERY = 0
        resume.STATE_SHARE = 1
        torch.set_num_threads(1)
        decode = World.decode
        World.decode = lambda *a: (time.sleep(0.04), decode(*a))[1]
        world = tiny_world()
        session = read_script({str(tmp_path / "a.yaml")!r}).session(world)
        config = RecordConfig(quiet=True, picture=PictureConfig(upscale=2))
        record(session, world, [{str(tmp_path / "a.mp4")!r}], config)
    """
    root = Path(__file__).parents[2]
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], cwd=root)
    folder = tmp_path / "a.mp4.resume"
    deadline = time.monotonic() + 60
    while not any(path.stem >= "state-000014" for path in folder.glob("state-*")):
        assert child.poll() is None, "the recording ended too soon"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.kill()
    child.wait()
    assert 16 < len(load_video(tmp_path / "a.mp4")) < 300
    assert len(read_session(tmp_path / "a.session.jsonl").events) > 10
    assert record(session, world, [tmp_path / "a.mp4"], replace(QUIET, resume=True)).finished
    for name in ("a.mp4", "a.session.jsonl"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()


def test_a_film_that_cannot_be_leaves_nothing_to_resume(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("world: tiny\nstart: 99\nscript: [{say: turn left}]\n")
    world = tiny_world()
    session = read_script(tmp_path / "a.yaml").session(world)
    with pytest.raises(ValueError, match=r"a\.yaml, line 1: start is 99"):
        record(session, world, [tmp_path / "a.mp4"], QUIET)
    assert not (tmp_path / "a.mp4.resume").exists()


def test_another_script_is_not_resumed(tmp_path: Path, steps: list[int]) -> None:
    steps[:] = [0, 3]
    recorded(tmp_path)
    with pytest.raises(ValueError, match="is of another script, world, device or version"):
        recorded(tmp_path, config=replace(QUIET, resume=True), world=tiny_world(num_steps=8))


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is nothing to resume"):
        recorded(tmp_path, config=RecordConfig(resume=True, quiet=True))


def test_a_start_picture_stays_found_from_the_session(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "start.png")
    (tmp_path / "a.yaml").write_text(
        "world: tiny\nstart: {image: start.png}\nscript:\n- {say: turn left, for: 2}\n"
    )
    world, out = tiny_world(), tmp_path / "films" / "deep"
    record(read_script(tmp_path / "a.yaml").session(world), world, [out / "a.mp4"], QUIET)
    session = read_session(out / "a.session.jsonl")
    assert session.events[0].start.path == os.path.join("..", "..", "start.png")
    *_, verdict = verify(session, tiny_world())
    assert verdict.difference is None


def test_gif_and_contact_sheet(tmp_path: Path) -> None:
    world = tiny_world()
    (tmp_path / "a.yaml").write_text(SCRIPT)
    files = [tmp_path / "a.gif", tmp_path / "a.png"]
    record(read_script(tmp_path / "a.yaml").session(world), world, files, QUIET)
    with Image.open(files[0]) as gif:
        assert (gif.n_frames, gif.size) == (64, (96, 64))
        total = 0
        for i in range(gif.n_frames):
            gif.seek(i)
            total += gif.info["duration"]
    assert abs(total - 4000) <= 10
    with Image.open(files[1]) as sheet:
        assert sheet.size == (4 * 98 - 2, 2 * 66 - 2)


def test_a_second_ctrl_c_insists() -> None:
    # A background job is started with SIGINT ignored; the test must not depend on that.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with clean_stop() as asked:
            os.kill(os.getpid(), signal.SIGINT)
            assert asked()
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, inherited)


def test_the_session_beside_lists_what_was_said(tmp_path: Path) -> None:
    recorded(tmp_path)
    lines = [json.loads(x) for x in (tmp_path / "a.session.jsonl").read_text().splitlines()[1:]]
    told = " ".join(x["event"] for x in lines)
    assert told == "reset note step step note fork step step keep step step step"
    assert lines[3]["say"] == "turn left"
    assert lines[7]["say"] == ["turn left", "turn right", "walk forward"]
