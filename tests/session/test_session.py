"""Session files: written line by line, read back, played again to the same bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from magi_world.session import events
from magi_world.session.events import (
    Fork,
    Keep,
    Load,
    Note,
    Rewind,
    Save,
    StartFile,
    from_record,
    to_record,
)
from magi_world.session.player import Verdict, load_start, replay, verify
from magi_world.session.session import Header, SessionWriter, read_session
from tests.tiny import tiny_world


def play(path: Path, window_size: int = 1) -> list[np.ndarray]:
    """A session with everything in it, and the frames that were seen."""
    world = tiny_world(window_size=window_size)
    seen = []
    with SessionWriter(path, world) as writer:

        def step(command: str | None, steer: str = "now") -> None:
            chunk = world.step(command, steer=steer)
            writer.step(chunk, steer)
            seen.append(chunk.frames)

        chunk = world.reset(seed=5, prompt="a cellar")
        writer.reset(chunk, world.seeds, scene="a cellar")
        seen.append(chunk.frames)
        step("turn left")
        back = world.snapshot()
        step("walk forward", "queue")
        writer.write(Save("1"))
        slot = world.snapshot()
        step(None)
        writer.write(Rewind(1))
        world.restore(back)
        writer.write(Note("agent takes over"))
        step("turn right")
        writer.write(Load("1"))
        world.restore(slot)
        step("größer")
        writer.write(Fork(2))
        wide = world.fork_batch(2)
        chunk = wide.step(["turn left", "turn right"])
        writer.step(chunk)
        seen.append(chunk.frames)
        writer.write(Keep(1))
        world.restore(wide.snapshot(), worlds=[0], row=1)
        step(None)
    return seen


@pytest.mark.parametrize("window_size", [1, 2])
def test_replays_to_the_same_bytes(tmp_path: Path, window_size: int) -> None:
    seen = play(tmp_path / "a.jsonl", window_size)
    session = read_session(tmp_path / "a.jsonl")
    again = [chunk.frames for chunk in replay(session, tiny_world(window_size=window_size))]
    assert len(again) == len(seen) == 8
    assert all(np.array_equal(a, b) for a, b in zip(again, seen, strict=True))
    *_, verdict = verify(session, tiny_world(window_size=window_size))
    assert verdict == Verdict(8, None, ())


def test_lines_say_what_happened(tmp_path: Path) -> None:
    play(tmp_path / "a.jsonl", window_size=2)
    header, *lines = map(json.loads, (tmp_path / "a.jsonl").read_text("utf-8").splitlines())
    assert header["session"] == 1
    assert (header["world"], header["fingerprint"], header["fps"]) == ("tiny", "tiny", 16)
    assert (header["num_steps"], header["window_size"], header["device"]) == (4, 2, "cpu")
    assert header["frame_size"] == [32, 48]
    assert lines[0]["seeds"] == [5]
    assert lines[0]["scene"] == "a cellar"
    step = {"event": "step", "chunk": 2, "say": "walk forward", "steer": "queue", "lands": 3}
    assert {k: v for k, v in lines[2].items() if k != "digest"} == step
    assert [line["event"] for line in lines].count("step") == 7
    assert [k["say"] for k in lines if k["event"] == "step"][-2] == ["turn left", "turn right"]


def test_verify_finds_the_first_difference(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    play(path)
    path.write_text(path.read_text("utf-8").replace("walk forward", "walk backward"), "utf-8")
    *chunks, verdict = verify(read_session(path), tiny_world())
    assert len(chunks) == 3
    assert verdict.compared == 2
    assert verdict.difference.startswith(f"{path}, line 4, chunk 2: the checksum of its frames was")


def test_verify_names_what_has_changed(tmp_path: Path) -> None:
    play(tmp_path / "a.jsonl")
    *_, verdict = verify(read_session(tmp_path / "a.jsonl"), tiny_world(num_steps=8))
    assert verdict.difference is not None
    assert "num_steps was 4, is 8" in verdict.causes


def test_another_start_differs_in_the_first_line(tmp_path: Path) -> None:
    play(tmp_path / "a.jsonl")
    session = read_session(tmp_path / "a.jsonl")
    *_, verdict = verify(session, tiny_world(num_starts=0))
    assert f"{tmp_path / 'a.jsonl'}, line 2, chunk 0" in verdict.difference


def test_every_line_is_on_disk_at_once(tmp_path: Path) -> None:
    world = tiny_world()
    writer = SessionWriter(tmp_path / "a.jsonl", world)
    writer.reset(world.reset(seed=1), world.seeds)
    for index in range(1, 4):
        writer.step(world.step())
        assert read_session(tmp_path / "a.jsonl").events[-1].chunk == index
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="was closed"):
        writer.write(Note("late"))


def test_any_cut_loses_at_most_the_last_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    play(path)
    whole = path.read_bytes()
    full = read_session(path)
    for size in range(whole.index(b"\n") + 1, len(whole)):
        path.write_bytes(whole[:size])
        cut = read_session(path)
        count = whole[:size].count(b"\n") - 1
        # A line that only lacks its line break is whole.
        assert cut.events in (full.events[:count], full.events[: count + 1])
        assert cut.truncated == (len(cut.events) == count and not whole[:size].endswith(b"\n"))


def test_never_written_over(tmp_path: Path) -> None:
    play(tmp_path / "a.jsonl")
    with pytest.raises(FileExistsError):
        SessionWriter(tmp_path / "a.jsonl", tiny_world())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"event": "note"', '"event": "nod"', "line 8: event is 'nod'; it must be one of reset"),
        ('"chunk": 3', '"chunk": "3"', "line 6: step.chunk is '3'; it must be a whole number"),
        ('"chunk": 3, ', "", "line 6: step lacks chunk"),
        ('"say"', '"says"', "line 3: step has no field 'says'"),
        (
            '"steer": "queue"',
            '"steer": "later"',
            "line 4: step.steer is 'later'; it must be one of ('now', 'queue')",
        ),
        ('{"event": "rewind"', '{"event" "rewind"', "line 7: not JSON"),
        ('"session": 1', '"session": 2', "line 1: session version is 2; this package reads 1"),
        ('"fps": 16', '"fps": "16"', "line 1: the header: fps is '16'; it must be a finite number"),
        ('"session": 1', '"sessions": 1', "line 1: this is no session file"),
        ('"futures": 2', '"futures": -1', "line 12: fork.futures is -1"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    play(path)
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(ValueError, match="line") as error:
        read_session(path)
    assert message in str(error.value)


UNSTARTED = '"event": "save", "slot": "x"}\n{"event": "reset"'


def test_impossible_events_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    play(path)
    text = path.read_text("utf-8")
    for old, new, message in (
        ('"rewind", "chunk": 1', '"rewind", "chunk": 9', "line 7: rewind to chunk 9"),
        ('"slot": "1"', '"slot": "2"', "line 10: slot '1' was not saved"),
        ('"future": 1', '"future": 2', "keep is 2; the fork has futures 0 .. 1"),
        ('"event": "reset"', UNSTARTED, "line 2: world 0 was not reset"),
    ):
        path.write_text(text.replace(old, new, 1), "utf-8")
        with pytest.raises(ValueError, match="line") as error:
            list(replay(read_session(path), tiny_world()))
        assert message in str(error.value)


def test_empty_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("")
    with pytest.raises(ValueError, match="is empty; a session begins with a header"):
        read_session(path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n\x00")
    with pytest.raises(ValueError, match="line 1: not JSON"):
        read_session(path)
    with pytest.raises(FileNotFoundError):
        read_session(tmp_path / "b.jsonl")


def test_a_picture_as_start_is_kept_by_its_hash(tmp_path: Path) -> None:
    picture = tmp_path / "start.png"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(picture)
    start = StartFile.of(picture, "image")
    world = tiny_world()
    path = tmp_path / "a.jsonl"
    with SessionWriter(path, world) as writer:
        chunk = world.reset(seed=3, image=load_start(start, world))
        writer.reset(chunk, world.seeds, start=StartFile("image", "start.png", start.sha256))
        writer.step(world.step("turn left"))
    *_, verdict = verify(read_session(path), tiny_world())
    assert verdict == Verdict(2, None, ())
    Image.fromarray(255 - pixels).save(picture)
    with pytest.raises(ValueError, match=r"line 2: .*start.png has changed since"):
        list(replay(read_session(path), tiny_world()))
    picture.unlink()
    with pytest.raises(FileNotFoundError, match="is gone"):
        list(replay(read_session(path), tiny_world()))


def test_several_worlds_and_partial_resets(tmp_path: Path) -> None:
    world, path = tiny_world(num_worlds=2), tmp_path / "a.jsonl"
    with SessionWriter(path, world) as writer:
        writer.reset(world.reset(seed=[8, 3]), world.seeds)
        writer.step(world.step(["turn left", "turn right"]))
        writer.reset(world.reset(seed=9, worlds=[1]), world.seeds[1:], worlds=[1])
        writer.step(world.step())
    session = read_session(path)
    assert session.events[-1].chunk == (2, 1)
    *_, verdict = verify(session, tiny_world(num_worlds=2))
    assert verdict == Verdict(4, None, ())
    with pytest.raises(ValueError, match="the session is of 2 worlds, this is 1"):
        list(replay(session, tiny_world()))


def test_header_lists_differences() -> None:
    header = Header.of(tiny_world())
    assert header.differences(tiny_world()) == []
    assert header.differences(tiny_world(num_steps=8)) == ["num_steps was 4, is 8"]
    other = replace(header, threads=header.threads + 1)
    assert other.differences(tiny_world()) == [f"threads was {other.threads}, is {header.threads}"]


LINE = st.text(min_size=1).filter(str.strip)
COUNT = st.integers(0, 2**40)
STARTS = st.one_of(
    st.none(),
    COUNT,
    st.just("text"),
    st.builds(StartFile, st.sampled_from(("image", "video")), LINE, LINE),
)
SAYS = st.one_of(st.none(), LINE, st.lists(st.none() | LINE, min_size=1).map(tuple))
NUMBERS = COUNT | st.lists(COUNT, min_size=1).map(tuple)
EVENTS = st.one_of(
    st.builds(events.Reset, st.lists(COUNT, min_size=1).map(tuple), SAYS, STARTS, digest=LINE),
    st.builds(events.Step, NUMBERS, SAYS, st.sampled_from(("now", "queue")), NUMBERS, LINE),
    st.builds(events.Rewind, COUNT),
    st.builds(events.Save, LINE),
    st.builds(events.Load, LINE, st.none() | LINE, st.none() | LINE),
    st.builds(events.Fork, st.integers(1, events.MAX_FUTURES)),
    st.builds(events.Keep, COUNT),
    st.builds(events.Note, LINE),
)


@given(EVENTS)
def test_records_hold_events_whole(event: events.Event) -> None:
    assert from_record(json.loads(json.dumps(to_record(event)))) == event
