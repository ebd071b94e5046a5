"""Bad arguments: each is refused with its name, and leaves everything as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import magi_world
from magi_world.agents import load_agent
from magi_world.envs import MagiWorldEnv, MagiWorldVectorEnv
from magi_world.envs.record import RecordChunks
from magi_world.envs.wrappers import ChunkToImage
from magi_world.io.media import VideoConfig, VideoWriter, fit, load_image, load_video
from magi_world.session.events import Fork, Keep, Note, Rewind, Save
from magi_world.session.session import SessionWriter
from magi_world.world.world import World
from tests.attack.judge import assert_refused
from tests.tiny import tiny_world, write_tiny_package

NAN = float("nan")
FRAME = np.zeros((32, 48, 3), np.uint8)


class Odd:
    """Something that nobody foresaw."""

    def __repr__(self) -> str:
        return "Odd()"  # an address may read like a part of torch


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_package(tmp_path_factory.mktemp("attack") / "tiny")


LOADS: list[dict[str, Any]] = [
    *({"num_worlds": v} for v in (0, -1, 1.5, "2", None, True, NAN, [1], 10**12)),
    *({"num_steps": v} for v in (0, -4, 2.5, "4", True, 3, 10**6, [4])),
    *({"window_size": v} for v in (0, -1, 1.5, "2", 3, 10**6)),
    *({"frame_size": v} for v in ((0, 48), (-32, 48), (33, 48), (32,), "32x48", 32, (32.0, 48.0),
                                  (10**9, 10**9), (16, 16, 16), ("32", "48"))),
    *({"dtype": v} for v in ("float64", "int8", 3, torch.float32, "")),
    *({"device": v} for v in ("gpu", "cpu:x", "", 3.5, "cuda:99", [])),
    *({"attention": v} for v in ("fast", 3, "")),
    *({"noise_scale": v} for v in (0, -1.0, NAN, float("inf"), "1", [1.0])),
    *({"weights": v} for v in ("somewhere", 3)),
    *({"threads": v} for v in (0, -1, 10**6, 1.5, "many", True)),
    {"captions": "x.safetensors"},
    {"text_device": "cpu"},
]  # fmt: skip


@pytest.mark.parametrize("options", LOADS, ids=str)
def test_loading(package: Path, options: dict[str, Any]) -> None:
    (name,) = options
    call = {"device": "cpu", **options}
    assert_refused(lambda: magi_world.load_world(package, **call), name)


@pytest.mark.parametrize(
    "name", ["", "atlantis", "../..", "/etc", "a\0b", "x" * 5000, None, 3, Odd()]
)
def test_worlds_that_are_not_there(name: Any) -> None:
    assert_refused(lambda: magi_world.load_world(name, device="cpu"), "world")


@pytest.fixture(scope="module")
def running() -> World:
    world = tiny_world(2)
    world.reset(seed=6)
    world.step("turn left")
    return world


@pytest.fixture
def world(running: World) -> Iterator[World]:
    """Two worlds, which must be the same afterwards."""
    before = running.snapshot()
    yield running
    after = running.snapshot()
    assert after.prompts == before.prompts
    assert torch.equal(after.state.newest_clean, before.state.newest_clean)
    assert after.state.rows == before.state.rows
    assert all(map(torch.equal, after.state.cache.clean(), before.state.cache.clean()))


RESETS: list[tuple[dict[str, Any], str]] = [
    *(({"seed": v}, "seed") for v in (-1, 2**63, 10**400, 1.5, "7", True, NAN, [1], [1, 2, 3],
                                      [1, "2"], Odd())),
    *(({"prompt": v}, "prompt") for v in ("", " ", 3, ["a"], ["a", 3], "x" * 5000, "\ud800", b"a",
                                          Odd())),
    *(({"image": v}, "image") for v in ("cat.png", 3, FRAME[0], FRAME[:16], FRAME[..., :1],
                                        FRAME.astype(float), FRAME.astype(object), np.uint8(3),
                                        FRAME[None, None], np.zeros((3, 32, 48, 3), np.uint8),
                                        [[0]], Odd())),
    *(({"video": v}, "video") for v in ("a.mp4", FRAME, FRAME[None][:0], FRAME[None, :, :8],
                                        np.zeros((5, 2, 32, 48, 3), np.uint8), Odd())),
    *(({"start": v}, "start") for v in (-1, 3, 10**30, 1.5, True, "cave", [0], Odd())),
    *(({"worlds": v}, "worlds") for v in ([], [2], [-1], [0, 0], [True, False], "01", 0, [0.0],
                                          [None], np.array([True, True]), Odd())),
    ({"image": FRAME, "video": FRAME[None]}, "image and video"),
    ({"image": FRAME, "start": 1}, "image and start"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "word"), RESETS, ids=lambda v: f"{v!r:.60}")
def test_resets(world: World, options: dict[str, Any], word: str) -> None:
    assert_refused(lambda: world.reset(**options), word)


STEPS: list[tuple[dict[str, Any], str]] = [
    *(({"command": v}, "command") for v in (3, 1.5, ["a"], ["a", 3], b"go", Odd(), ["a"] * 3, {})),
    *(({"command": v}, "prompt") for v in ("", " \t\n", "x" * 5000, "\ud800")),
    *(({"steer": v}, "steer") for v in ("later", None, 3, "")),
    *(({"worlds": v}, "worlds") for v in ([], [2], [True, True], "0", [1, 1], 1)),
]


@pytest.mark.parametrize(("options", "word"), STEPS, ids=lambda v: f"{v!r:.60}")
def test_steps(world: World, options: dict[str, Any], word: str) -> None:
    assert_refused(lambda: world.step(**options), word)


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", None, True, 10**9])
def test_numbers_of_environments(running: World, env: MagiWorldEnv, count: Any) -> None:
    assert_refused(lambda: MagiWorldVectorEnv(count, running), "num_envs")
    assert_refused(lambda: env.fork_batch(count), "n is")
    assert_refused(lambda: env.fork(count), "n is")


def test_restores_and_forks(world: World) -> None:
    snapshot = world.snapshot()
    for bad in (None, 3, "a.safetensors", {}, Odd()):
        assert_refused(lambda bad=bad: world.restore(bad), "snapshot is")
    for row in (-1, 2, True, 1.0, "0"):
        assert_refused(lambda row=row: world.restore(snapshot, row=row), "worlds")
    for rows in ([], [2], [True, False], "01", [0, 0]):
        assert_refused(lambda rows=rows: world.restore(snapshot, worlds=rows), "worlds")
    for n in (0, -1, 1.5, "2", None, True):
        assert_refused(lambda n=n: world.fork(n), "n is")
        assert_refused(lambda n=n: world.fork_batch(n), "n is")
    assert_refused(lambda: world.fork_batch(10**9), "memory")


ENVS: list[dict[str, Any]] = [
    *({"world": v} for v in (3, None, Odd(), "atlantis")),
    *({"observation": v} for v in ("pixels", 3, None)),
    *({"max_chunks": v} for v in (0, -1, 1.5, "8", True)),
    *({"prompt": v} for v in ("", 3, "\ud800")),
    *({"seed": v} for v in (-1, 1.5, "0", True)),
    *({"steer": v} for v in ("later", None)),
    *({"render_mode": v} for v in ("ansi", 3)),
    *({"start": v} for v in (99, -1, "no-such.png", 1.5, FRAME[0], Odd())),
    *({"reward": v} for v in ("fun", 3, "text:", Odd(), [3])),
]


@pytest.mark.parametrize("options", ENVS, ids=lambda v: f"{v!r:.60}")
def test_environments(running: World, options: dict[str, Any]) -> None:
    (name,) = options
    word = "no-such" if str(options[name]) == "no-such.png" else name
    assert_refused(lambda: MagiWorldEnv(**{"world": running, **options}), word)
    assert_refused(lambda: MagiWorldVectorEnv(2, **{"world": running, **options}), word)


EPISODES: list[tuple[Any, str]] = [
    (3, "options"),
    ([], "options"),
    ({"colour": 1}, "colour"),
    *(({"prompt": v}, "prompt") for v in ("", 3)),
    *(({"start": v}, "start") for v in (99, 1.5, Odd())),
    *(({"image": v}, "image") for v in (3, FRAME[0])),
    *(({"video": v}, "video") for v in (3, FRAME)),
    *(({"snapshot": v}, "snapshot") for v in (3, {}, Odd())),
    ({"snapshot": "no-such.safetensors"}, "no-such"),
    ({"image": FRAME, "start": 0}, "image"),
]


@pytest.fixture(scope="module")
def env(running: World) -> MagiWorldEnv:
    env = MagiWorldEnv(World(running.parts))
    env.reset(seed=0)
    return env


@pytest.mark.parametrize(("options", "word"), EPISODES, ids=lambda v: f"{v!r:.60}")
def test_episodes(env: MagiWorldEnv, options: Any, word: str) -> None:
    before = env.world.snapshot().prompts
    assert_refused(lambda: env.reset(options=options), word)
    assert env.world.snapshot().prompts == before


@pytest.mark.parametrize("action", ["", " ", 3, None, b"go", "tür", "x" * 5000, "\n", Odd(), []])
def test_actions(env: MagiWorldEnv, action: Any) -> None:
    before = env.world.snapshot().prompts
    assert_refused(lambda: env.step(action), "action")
    assert env.world.snapshot().prompts == before


def test_pictures_and_films(tmp_path: Path) -> None:
    for size in ((0, 4), (4,), "4x4", (4.0, 4), (-4, 4)):
        assert_refused(lambda size=size: fit(FRAME, size), "size")
    for frames in (FRAME[0], FRAME.astype(float), "a", None, FRAME[:0]):
        assert_refused(lambda frames=frames: fit(frames, (4, 4)), "frames")
    for fps in (0, -5, NAN, float("inf")):
        assert_refused(lambda fps=fps: VideoConfig(fps, (4, 4)), "fps")
        assert_refused(lambda fps=fps: load_video("a.mp4", fps), "fps")
    for last in (0, -1):
        assert_refused(lambda last=last: load_video("a.mp4", last=last), "last")
    for path in (tmp_path, tmp_path / "none.png", 3, None):
        assert_refused(lambda path=path: load_image(path), "image")
        assert_refused(lambda path=path: load_video(path), "video")
    assert_refused(lambda: VideoWriter(tmp_path / "a.avi", VideoConfig(8, (4, 4))), "mp4")
    with VideoWriter(tmp_path / "a.mp4", VideoConfig(8, (4, 4))) as writer:
        for frames in (FRAME, FRAME[:4, :4].astype(float), None, "a"):
            assert_refused(lambda frames=frames: writer.write(frames), "frames")
    for upscale in (0, -1, 1.5, "2", 10**6, True):
        assert_refused(lambda upscale=upscale: VideoConfig(8, (4, 4), upscale), "upscale")


@pytest.mark.parametrize(
    "name",
    ["", "nobody", "constant:", "greedy:", "planner:futures=x", "planner:colour=1", "os:getcwd()",
     "no.such:thing", "os:", ":x", "json:JSONDecoder"],
)  # fmt: skip
def test_agents_that_are_not_there(name: str) -> None:
    assert_refused(lambda: load_agent(name))


def test_wrappers_and_recorders(env: MagiWorldEnv, tmp_path: Path) -> None:
    for frames in (0, -1, 1.5, "4", 10**6):
        assert_refused(lambda frames=frames: ChunkToImage(env, frames), "frames")
    for name in ("../x", "a/b", "", 3):
        assert_refused(lambda name=name: RecordChunks(env, tmp_path, name), "name")


def test_the_session_writer_takes_nothing_that_cannot_be_read(
    running: World, tmp_path: Path
) -> None:
    with SessionWriter(tmp_path / "a.jsonl", running) as writer:
        for text in ("", " ", "\ud800", 3, None):
            assert_refused(lambda text=text: writer.write(Note(text)), "text")
        for slot in ("", 3, None):
            assert_refused(lambda slot=slot: writer.write(Save(slot)), "slot")
        for number in (-1, 1.5, "3", True, None):
            assert_refused(lambda number=number: writer.write(Rewind(number)), "chunk")
            assert_refused(lambda number=number: writer.write(Fork(number)), "futures")
            assert_refused(lambda number=number: writer.write(Keep(number)), "future")
        assert_refused(lambda: writer.write(Fork(0)), "futures")
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 1
