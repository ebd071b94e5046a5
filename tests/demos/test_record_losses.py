"""Recordings lose nothing: not their input, not what can be resumed, not one another's files."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from magi_world.demos import resume
from magi_world.demos.outputs import Gif, Sheet
from magi_world.demos.record import RecordConfig, Recording, check_outputs, record
from magi_world.demos.render import PictureConfig
from magi_world.io.files import only_one, write_text
from magi_world.io.media import load_video
from magi_world.session.script import read_script
from magi_world.session.session import read_session
from magi_world.world.world import World
from tests.tiny import tiny_world

SCRIPT = "world: tiny\nscript:\n  - {say: turn left, for: 4}\n"
QUIET = RecordConfig(quiet=True, picture=PictureConfig(upscale=2))
OVER, ON = replace(QUIET, overwrite=True), replace(QUIET, resume=True)


def recorded(
    folder: Path, config: RecordConfig = QUIET, text: str = SCRIPT, name: str = "a.mp4"
) -> Recording:
    (folder / "a.yaml").write_text(text)
    world = tiny_world()
    return record(read_script(folder / "a.yaml").session(world), world, [folder / name], config)


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recording that was stopped at its third chunk."""
    compute, count = World._compute, [0]

    def counted(world: World, *args: object) -> object:
        count[0] += 1
        if count[0] == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return compute(world, *args)

    with monkeypatch.context() as patch:
        patch.setattr(World, "_compute", counted)
        assert not recorded(tmp_path).finished
    return tmp_path


def test_a_session_rendered_again_beside_itself_is_kept(tmp_path: Path) -> None:
    recorded(tmp_path)
    path = tmp_path / "a.session.jsonl"
    before = path.read_bytes()
    made = record(read_session(path), tiny_world(), [tmp_path / "a.mp4"], OVER)
    assert path.read_bytes() == before
    assert made.session == str(path)
    # Without --overwrite too: the session is not in its own way.
    (tmp_path / "a.mp4").unlink()
    assert record(read_session(path), tiny_world(), [tmp_path / "a.mp4"], QUIET).finished


def test_what_a_script_starts_from_is_not_written_over(tmp_path: Path) -> None:
    Image.new("RGB", (48, 32), "red").save(tmp_path / "room.png")
    before = (tmp_path / "room.png").read_bytes()
    text = SCRIPT.replace("script", "start: {image: room.png}\nscript")
    with pytest.raises(ValueError, match=r"room\.png, which the session starts from"):
        recorded(tmp_path, OVER, text, "room.png")
    assert (tmp_path / "room.png").read_bytes() == before


def test_one_file_is_not_written_twice_at_once(tmp_path: Path) -> None:
    names = [tmp_path / "a.mp4", tmp_path / "x" / ".." / "a.mp4"]
    with pytest.raises(ValueError, match="names a file twice"):
        check_outputs(names, QUIET)
    (tmp_path / "b.mp4").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        check_outputs([tmp_path / "b.mp4"], OVER)


def test_a_mistake_is_not_in_the_way_of_its_correction(tmp_path: Path) -> None:
    wrong = SCRIPT.replace("script", "start: 99\nscript")
    with pytest.raises(ValueError, match="start is 99"):
        recorded(tmp_path, text=wrong)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.yaml"]
    assert recorded(tmp_path).finished


def test_a_mistake_leaves_older_files(tmp_path: Path) -> None:
    recorded(tmp_path)
    with pytest.raises(FileExistsError):
        recorded(tmp_path)
    assert len(load_video(tmp_path / "a.mp4")) == 40


@pytest.mark.parametrize("config", [QUIET, OVER])
def test_an_empty_resume_folder_blocks_nothing(tmp_path: Path, config: RecordConfig) -> None:
    (tmp_path / "a.mp4.resume").mkdir()
    with pytest.raises(ValueError, match="nothing to resume"):
        recorded(tmp_path, ON)
    assert recorded(tmp_path, config).finished
    assert not (tmp_path / "a.mp4.resume").exists()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a.mp4.resume"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years")
    (folder / "plan.json").write_text("{}")
    with pytest.raises(ValueError, match="is in the way, and not ours"):
        recorded(tmp_path)
    assert (folder / "thesis.tex").read_text() == "years"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"plan": 3}', "{" * 10_000])
def test_a_damaged_plan_is_named(stopped: Path, text: str) -> None:
    (stopped / "a.mp4.resume" / "plan.json").write_text(text)
    with pytest.raises(ValueError, match=r"plan\.json"):
        recorded(stopped, ON)
    assert recorded(stopped, OVER).finished


def test_a_missing_or_damaged_chunk_is_no_shorter_film(stopped: Path) -> None:
    folder = stopped / "a.mp4.resume"
    chunk = sorted(folder.glob("chunk-*"))[1]
    kept = chunk.read_bytes()
    for content in (None, b"", kept[:-40], kept.replace(b"prompts", b"pompts_")):
        chunk.unlink() if content is None else chunk.write_bytes(content)
        with pytest.raises((ValueError, FileNotFoundError), match=chunk.name):
            recorded(stopped, ON)
        assert list(folder.glob("state-*")), "there is still something to go on from"
    chunk.write_bytes(kept)
    assert recorded(stopped, ON).chunks == 5


def test_the_way_back_stays_until_every_file_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "STATE_EVERY", 0)

    def full(gif: Gif) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Gif, "close", full)
        with pytest.raises(OSError, match="No space"):
            recorded(tmp_path, name="a.gif")
    assert recorded(tmp_path, ON, name="a.gif").chunks == 5
    assert not (tmp_path / "a.gif.resume").exists()


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [60, 100, 700, 3_000, 20_000])
@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png"])
def test_a_full_disk_is_named_and_can_be_resumed_or_begun_anew(
    tmp_path: Path, size: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "STATE_EVERY", 0)
    with small_disk(size):
        told = []
        try:
            recorded(tmp_path, name=name)
        except OSError as error:
            told.append(str(error))
    assert all(str(tmp_path) in text for text in told), "the file is named"
    assert recorded(tmp_path, OVER, name=name).finished


def test_two_at_once_do_not_damage_each_other(stopped: Path) -> None:
    with only_one(stopped / ".a.mp4.resume.lock", "the film"):
        for config in (QUIET, OVER, ON):
            if config is QUIET:
                continue
            with pytest.raises(BlockingIOError, match=r"a\.mp4 is being written by another"):
                recorded(stopped, config)
    assert recorded(stopped, ON).finished
    assert not list(stopped.glob(".a.*"))


def test_pictures_are_written_whole(tmp_path: Path) -> None:
    frames = np.zeros((4, 32, 48, 3), np.uint8)
    for output, path in (
        (Gif(tmp_path / "a.gif", 16), tmp_path / "a.gif"),
        (Sheet(tmp_path / "a.png", 1), tmp_path / "a.png"),
    ):
        path.write_bytes(b"older")
        output.write(frames)
        with small_disk(10), pytest.raises(OSError):  # noqa: PT011 - Pillow says it in its words
            output.close()
        assert path.read_bytes() == b"older"
    assert len(list(tmp_path.iterdir())) == 2


def test_texts_are_written_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "a.txt", "older")
    with small_disk(3), pytest.raises(OSError, match=r"large|space"):
        write_text(tmp_path / "deep" / "a.txt", "newer and longer")
    assert (tmp_path / "deep" / "a.txt").read_text() == "older"
    assert len(list((tmp_path / "deep").iterdir())) == 1
