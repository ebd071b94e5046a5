"""Bad files: each is refused with its name; nothing hangs, nothing is run, nothing is believed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from magi_world.agents.ppo.policy import PolicyRecord, read_policy
from magi_world.demos.record import RecordConfig, record
from magi_world.envs.state import load_snapshot
from magi_world.envs.wrappers import Stacking
from magi_world.io.media import load_image, load_video
from magi_world.io.package import read_package
from magi_world.io.safetensors_io import load_tensors, save_tensors
from magi_world.session.player import replay
from magi_world.session.script import read_script
from magi_world.session.session import SessionWriter, read_session
from magi_world.world.snapshot import Snapshot
from magi_world.world.world import World
from tests.attack.judge import assert_refused
from tests.tiny import tiny_world, write_tiny_package

READERS: dict[str, Callable[[Path], Any]] = {
    "script.yaml": read_script,
    "session.jsonl": read_session,
    "snapshot.safetensors": load_snapshot,
    "picture.png": load_image,
    "film.mp4": load_video,
    "weights.safetensors": load_tensors,
    "world/world.json": lambda path: read_package(path.parent),
    "policy/policy.json": lambda path: read_policy(path.parent),
}
EVIL = b"cos\nsystem\n(S'touch ran'\ntR."  # what unpickling would run
CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "zeros": bytes(4096),
    "text": b"this is not what you are looking for\n",
    "pickle": EVIL,
    "gzip": b"\x1f\x8b\x08\x00" + bytes(64),
    "latin": "träumen\n".encode("latin-1"),
    "deep": b"[" * 200_000,
    "wide": b'{"a": ' * 5_000 + b"1" + b"}" * 5_000,
    "nan": b'{"session": NaN, "schema": NaN}\n',
    "png head": b"\x89PNG\r\n\x1a\n" + bytes(40),
    "huge header": (2**40).to_bytes(8, "little") + b"{}",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n",
    "play list": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n",
    "alias bomb": b"a: &a [x, x]\nb: &b [*a, *a]\nscript: [*b, *b]\nworld: *a\n",
    "yaml tag": b'world: !!python/object/apply:os.system ["touch ran"]\nscript: [{say: go}]\n',
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("content", CONTENTS)
def test_files_of_another_kind(
    name: str, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(CONTENTS[content])
    assert_refused(lambda: READERS[name](path), path.name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", READERS)
def test_things_that_are_no_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    assert_refused(lambda: READERS[name](path), path.name)
    path.mkdir()
    assert_refused(lambda: READERS[name](path), path.name)
    path.rmdir()
    os.mkfifo(path)
    assert_refused(lambda: READERS[name](path), path.name)
    path.unlink()
    path.symlink_to(path)
    assert_refused(lambda: READERS[name](path), path.name)


@pytest.fixture(scope="module")
def world() -> World:
    made = tiny_world()
    made.reset(seed=3)
    made.step("turn left")
    return made


@pytest.fixture(scope="module")
def whole(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good file of each kind."""
    folder = tmp_path_factory.mktemp("whole")
    world.snapshot().save(folder / "snapshot.safetensors")
    save_tensors(folder / "weights.safetensors", {"a": torch.arange(40.0), "b": torch.zeros(3)})
    Image.effect_noise((64, 64), 90).save(folder / "picture.png")
    write_tiny_package(folder / "world")
    return folder


BINARY = ["snapshot.safetensors", "weights.safetensors", "picture.png"]


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95, 0.99])
def test_truncated_files(name: str, share: float, whole: Path, tmp_path: Path) -> None:
    data = (whole / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    assert_refused(lambda: READERS[name](tmp_path / name), name)


@pytest.mark.parametrize("name", BINARY[:2])
@pytest.mark.parametrize("place", range(0, 200, 8))
def test_headers_with_a_wrong_byte(name: str, place: int, whole: Path, tmp_path: Path) -> None:
    data = bytearray((whole / name).read_bytes())
    if place >= len(data):
        pytest.skip("a short header")
    data[place] ^= 0x5A
    (tmp_path / name).write_bytes(data)
    told = name
    try:  # a byte of a name or of padding may be right as well
        READERS[name](tmp_path / name)
    except (ValueError, OSError) as error:
        told = str(error)
    assert name in told


HEADER: dict[str, Any] = {
    "world": ["", 3, None, "a\0b", "\ud800"],
    "num_steps": [0, -1, "4", 4.5, True, 10**9, None],
    "window_size": [0, "1", 10**9],
    "frame_size": [3, [32], ["32", "48"], [32, 48, 3], None],
    "fps": ["16", None],
    "num_worlds": [0, -1, 1.5, 10**12],
    "noise_scale": [0, -1, "1", None],
    "attention": ["fast", 3],
    "dtype": ["float8", None],
    "threads": [-1, 10**9, "all"],
    "colour": ["red"],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in HEADER.items() for v in vs])
def test_headers_of_sessions(name: str, value: Any, world: World, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    SessionWriter(path, world).close()
    header = json.loads(path.read_text())
    path.write_text(json.dumps({**header, name: value}) + "\n")
    assert_refused(lambda: read_session(path), "a.jsonl, line 1", name)


EVENTS: list[Any] = [
    3, [], None, {}, {"event": "fly"}, {"event": []}, {"event": "reset"},
    {"event": "reset", "seeds": []}, {"event": "reset", "seeds": [-1]},
    {"event": "reset", "seeds": [0.5]}, {"event": "reset", "seeds": [0], "start": {"image": 3}},
    {"event": "reset", "seeds": [0], "start": {"image": "a", "video": "b"}},
    {"event": "step"}, {"event": "step", "chunk": -1}, {"event": "step", "chunk": "1"},
    {"event": "step", "chunk": 1, "say": 3}, {"event": "step", "chunk": 1, "say": "\ud800"},
    {"event": "step", "chunk": 1, "steer": "later"}, {"event": "step", "chunk": 1, "lands": "x"},
    {"event": "fork", "futures": 0}, {"event": "fork", "futures": 10**9},
    {"event": "keep", "future": -1}, {"event": "rewind", "chunk": [1]},
    {"event": "save", "slot": ""}, {"event": "save", "slot": "1", "chunk": "2"},
    {"event": "load", "slot": 3}, {"event": "note", "text": None}, {"event": "note", "txt": "x"},
]  # fmt: skip


@pytest.mark.parametrize("event", EVENTS, ids=lambda v: f"{v!r:.50}")
def test_lines_of_sessions(event: Any, world: World, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    SessionWriter(path, world).close()
    path.write_text(path.read_text() + json.dumps(event) + "\n")
    assert_refused(lambda: read_session(path), "a.jsonl, line 2")


IMPOSSIBLE: list[list[dict[str, Any]]] = [
    [{"event": "step", "chunk": 1}],
    [{"event": "reset", "seeds": [0, 1]}],
    [{"event": "reset", "seeds": [2**63]}],
    [{"event": "reset", "seeds": [0], "start": 99}],
    [{"event": "reset", "seeds": [0], "worlds": [1]}],
    [{"event": "reset", "seeds": [0], "start": {"image": "gone.png", "sha256": "0"}}],
    [{"event": "reset", "seeds": [0], "start": {"video": "/dev/zero", "sha256": "0"}}],
    [{"event": "reset", "seeds": [0]}, {"event": "rewind", "chunk": 7}],
    [{"event": "reset", "seeds": [0]}, {"event": "keep", "future": 0}],
    [{"event": "reset", "seeds": [0]}, {"event": "load", "slot": "1"}],
    [{"event": "reset", "seeds": [0]}, {"event": "save", "slot": "1", "chunk": 7}],
    [{"event": "reset", "seeds": [0]}, {"event": "load", "slot": "1", "path": "gone"}],
    [{"event": "reset", "seeds": [0]}, {"event": "step", "chunk": 1, "say": ["a", "b"]}],
]


@pytest.mark.parametrize("events", IMPOSSIBLE, ids=lambda v: f"{v[-1]!r:.50}")
def test_sessions_that_cannot_happen(
    events: list[dict[str, Any]], tmp_path: Path, world: World
) -> None:
    path = tmp_path / "a.jsonl"
    SessionWriter(path, world).close()
    path.write_text(path.read_text() + "".join(json.dumps(e) + "\n" for e in events))
    fresh = World(world.parts)
    assert_refused(lambda: list(replay(read_session(path), fresh)))


SCRIPTS = [
    "script: [{say: go}]", "world: tiny", "world: tiny\nscript: []", "world: tiny\nscript: go",
    "world: []\nscript: [{say: go}]", "world: tiny\nscript: [{}]", "world: tiny\nscript: [3]",
    "world: tiny\nscript: [{fly: up}]", "world: tiny\nscript: [{say: ''}]",
    "world: tiny\nscript: [{say: go, for: 0}]", "world: tiny\nscript: [{say: go, for: 1.5}]",
    "world: tiny\nscript: [{say: go, for: 999999999999}]",
    "world: tiny\nscript: [{repeat: 999999999999, do: [{at: 1}]}]",
    "world: tiny\nscript: [{repeat: 99999999, do: [{repeat: 99999999, do: [{say: go}]}]}]",
    "world: tiny\nscript: [{fork: [a]}]", "world: tiny\nscript: [{fork: [a, b], keep: c}]",
    "world: tiny\nscript: [{at: 5, say: go}, {at: 2, say: go}]",
    "world: tiny\nseed: -1\nscript: [{say: go}]", "world: tiny\nseed: x\nscript: [{say: go}]",
    "world: tiny\nstart: {image: gone.png}\nscript: [{say: go}]",
    "world: tiny\nstart: {}\nscript: [{say: go}]", "world: tiny\nlength: 0\nscript: [{say: go}]",
    "world: tiny\nsteer: later\nscript: [{say: go}]", "world: tiny\nworld: b\nscript: [{say: go}]",
    "world: tiny\nframe_size: [32]\nscript: [{say: go}]", "world: tiny\n\tscript: x", "? [a]\n: b",
    'world: "\\ud800"\nscript: [{say: go}]', "world: tiny\nscript: [{say: go, note: ''}]",
]  # fmt: skip


@pytest.mark.parametrize("text", SCRIPTS, ids=lambda v: v.replace("\n", " ")[:60])
def test_scripts(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    assert_refused(lambda: read_script(tmp_path / "a.yaml"), "a.yaml")


OUTPUTS = ["a.avi", "a", "a.mp4/b.mp4", "", ".mp4", "x" * 300 + ".mp4"]


@pytest.mark.parametrize("name", OUTPUTS, ids=len)
def test_outputs(name: str, tmp_path: Path, world: World) -> None:
    (tmp_path / "a.yaml").write_text("world: tiny\nscript: [{say: turn left}]\n")
    (tmp_path / "a.mp4").write_bytes(b"")
    session = read_script(tmp_path / "a.yaml").session(world)
    config = RecordConfig(quiet=True)
    assert_refused(lambda: record(session, World(world.parts), [tmp_path / name], config))


POLICY: dict[str, list[Any]] = {
    "schema": [0, 2, "1", None],
    "commands": [3, [], [3], None],
    "frame_size": [3, [32], [0, 0], ["a", "b"], [10**9, 10**9]],
    "stacking": [3, {}, {"frames": 0}, {"frames": 10**9, "every": 1}, {"colour": 1}],
    "features": [0, -1, "9", 10**12],
    "steps": ["x", None],
    "training": [3],
    "weights": [3, None],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in POLICY.items() for v in vs])
def test_policies(name: str, value: Any, tmp_path: Path) -> None:
    good = PolicyRecord(("a", "b"), (32, 48), Stacking(1), 8)
    stored = {"schema": 1, **asdict(good), "weights": "0"}
    (tmp_path / "policy.json").write_text(json.dumps({**stored, name: value}))
    save_tensors(tmp_path / "policy.safetensors", {"a": torch.zeros(1)})
    assert_refused(lambda: read_policy(tmp_path), "policy")


def test_a_snapshot_of_another_world_changes_nothing(world: World, whole: Path) -> None:
    other = tiny_world(window_size=2)
    other.reset(seed=1)
    before = other.snapshot().prompts
    loaded = Snapshot.load(whole / "snapshot.safetensors")
    assert_refused(lambda: other.restore(loaded), "another sampler")
    assert other.snapshot().prompts == before
