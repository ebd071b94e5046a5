"""`RemoteWorld` against the world itself: same answers, without loss."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

import magi_world
from magi_world import RemoteWorld, Snapshot
from magi_world.demos.cli import main
from magi_world.demos.window import jobs
from magi_world.demos.window.panels import score_words
from magi_world.demos.window.worker import Engine
from magi_world.language import CommandQueue
from magi_world.model.heads import Heads, HeadsConfig
from magi_world.remote.wire import pack, unpack
from magi_world.world.start import best_start
from magi_world.world.world import World
from tests.alike import assert_alike
from tests.tiny import FRAME_SIZE, tiny_parts, tiny_world

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from tests.demos.server_stage import Running, running
from tests.demos.stage import Stage


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("served"), limits={"chunks": None}) as made:
        yield made


def test_it_is_the_world(server: Running) -> None:
    far, near = RemoteWorld(server.ws, 2), tiny_world(2)
    assert replace(far.spec, best_start=None) == near.spec
    assert far.spec.best_start == best_start(near.parts)
    assert (far.num_worlds, far.latent_shape) == (2, near.latent_shape)
    assert_alike(
        far.reset([3, 9], ["a cave", None]).frames, near.reset([3, 9], ["a cave", None]).frames
    )
    for say in (["turn left", "turn right"], None, "walk forward"):
        one, other = far.step(say), near.step(say)
        assert_alike(one.frames, other.frames)
        assert_alike(one.latents, other.latents)
        assert (one.index, one.prompts, one.lands, one.skip) == (
            other.index, other.prompts, other.lands, other.skip,
        )  # fmt: skip
    assert far.seeds == near.seeds == (3, 9)
    assert_alike(
        far.step("turn left", worlds=[1]).frames, near.step("turn left", worlds=[1]).frames
    )
    far.close()


def test_starts_from_pictures(server: Running) -> None:
    far, near = RemoteWorld(server.ws), tiny_world()
    image = np.random.default_rng(0).integers(0, 256, (*FRAME_SIZE, 3), dtype=np.uint8)
    video = np.stack([image] * 16)
    assert_alike(far.reset(1, image=image).frames, near.reset(1, image=image).frames)
    assert_alike(far.reset(1, video=video).frames, near.reset(1, video=video).frames)
    assert_alike(far.reset(1, start="text").frames, near.reset(1, start="text").frames)
    far.close()


def test_snapshots_are_handles_that_continue_exactly(server: Running, tmp_path: Path) -> None:
    far = RemoteWorld(server.ws)
    far.reset(4)
    far.step("turn left")
    kept = far.snapshot()
    first = far.step("walk forward").frames
    far.restore(kept)
    assert np.array_equal(far.step("walk forward").frames, first)
    left, right = far.fork(2)
    for twin in (left, right):
        twin.restore(kept)
    assert np.array_equal(left.step("walk forward").frames, first)
    assert not np.array_equal(right.step("turn right").frames, first)
    wide = far.fork_batch(3)
    assert wide.num_worlds == 3
    wide.restore(kept, worlds=[0, 2], row=0)
    frames = wide.step(["walk forward", "turn left", "walk forward"]).frames
    assert_alike(frames[0], first[0])
    assert_alike(frames[2], first[0])
    # A file goes both ways: from there to a world here, and back to another connection.
    kept.save(tmp_path / "kept.safetensors")
    near = tiny_world()
    near.restore(Snapshot.load(tmp_path / "kept.safetensors"))
    assert_alike(near.step("walk forward").frames, first)
    other = RemoteWorld(server.ws)
    other.restore(Snapshot.load(tmp_path / "kept.safetensors"))
    assert_alike(other.step("walk forward").frames, first)
    other.restore(kept)
    assert_alike(other.step("walk forward").frames, first)
    for world in (far, other):
        world.close()


def test_states_that_nobody_holds_are_let_go(server: Running) -> None:
    far = RemoteWorld(server.ws)
    far.reset(4)
    for _ in range(10):
        far.step("turn left")
    gc.collect()
    far.step()
    (program,) = server.hub.programs
    assert len(program._states) <= 3
    far.close()


def test_what_is_wrong_is_a_value_error_and_changes_nothing(server: Running) -> None:
    far = RemoteWorld(server.ws)
    with pytest.raises(ValueError, match="world 0 was not reset"):
        far.step("turn left")
    far.reset(4)
    kept = far.snapshot()
    for call, message in (
        (lambda: far.step(""), "must say something"),
        (lambda: far.step("x" * 999), "at most 300"),
        (lambda: far.step("turn left", steer="later"), "steer is 'later'"),  # type: ignore[arg-type]
        (lambda: far.reset(1, start=77), "start is 77"),
        (lambda: far.another(99), "num_worlds is 99"),
        (lambda: far.restore("x"), "must be a Snapshot"),  # type: ignore[arg-type]
        (lambda: RemoteWorld(server.ws, world="mars"), "this server has tiny"),
        (lambda: RemoteWorld("http://127.0.0.1"), "must be ws://"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert far.snapshot() is kept
    with pytest.raises(OSError, match="no server answers"):
        RemoteWorld("ws://127.0.0.1:9")
    far.close()


def test_a_token_is_asked_for(tmp_path: Path) -> None:
    with running(tmp_path, token="a-good-token") as server:
        with pytest.raises(OSError, match="needs its token"):
            RemoteWorld(server.ws)
        RemoteWorld(f"{server.ws}/?token=a-good-token").close()


def test_the_pace_is_kept_by_waiting(tmp_path: Path) -> None:
    with running(tmp_path, limits={"chunks": 20.0, "visitors": 1}) as server:
        far = RemoteWorld(server.ws)
        far.reset(1)
        with pytest.raises(OSError, match="all 1 places"):
            RemoteWorld(server.ws)
        for _ in range(45):
            assert far.step("turn left").frames.shape[0] == 1
        far.close()


def test_words_are_read_there(server: Running) -> None:
    far, near = RemoteWorld(server.ws), tiny_world()
    queue = CommandQueue(rest="stand still")
    for text in ("turn left twice, then walk forward", "open the fridge", "again"):
        assert far.interpreter.read(text, queue) == near.interpreter.read(text, queue)
    far.close()


def test_the_environment_runs_on_it(server: Running) -> None:
    env = gym.make("magi_world:MagiWorld-v0", world=server.ws, max_chunks=3)
    seen, _ = env.reset(seed=5)
    assert_alike(seen, tiny_world().reset(5).frames[0])
    rewards = [env.step("turn left") for _ in range(3)]
    assert rewards[-1][3]
    twin = env.unwrapped.fork(2)
    assert len(twin) == 2
    env.close()
    envs = gym.make_vec(
        "magi_world:MagiWorld-v0", num_envs=2, world=server.ws, observation="latent"
    )
    seen, _ = envs.reset(seed=5)
    assert seen.shape == (2, *tiny_world().latent_shape)
    envs.step(["turn left", "turn right"])
    envs.close()


def test_the_window_runs_on_it(server: Running, tmp_path: Path) -> None:
    engine = Engine(magi_world.load_world)
    opened = engine.run(jobs.Open(server.ws, jobs.Start(seed=3)), lambda *_: None)
    assert isinstance(opened, jobs.Opened)
    seen = []
    step = engine.run(jobs.Step(opened.moment, "turn left"), lambda *at: seen.append(at))
    assert isinstance(step, jobs.Done)
    near = tiny_world()
    near.reset(3)
    assert_alike(step.moment.frames, near.step("turn left").frames[0])
    assert seen[-1] == (4, 4)
    imagined = engine.run(jobs.Imagine(step.moment, ("turn left", "turn right")), lambda *_: None)
    assert isinstance(imagined, jobs.Imagined)
    assert imagined.frames.shape[0] == 2
    path = tmp_path / "slot.safetensors"
    engine.run(jobs.Save(step.moment, 1, path), lambda *_: None)
    loaded = engine.run(jobs.Load(path, 1), lambda *_: None)
    assert isinstance(loaded, jobs.Done)
    assert np.array_equal(loaded.moment.frames, step.moment.frames)


def test_the_score_is_that_of_the_world_itself(tmp_path: Path) -> None:
    config = HeadsConfig(8, 2, (4, 6), ("star", "fall"), (2.0, -1.0), end="fall")
    heads = Heads(config).requires_grad_(False)
    heads.fc2.weight.data.zero_()
    heads.fc2.bias.data = torch.tensor([5.0, -5.0])
    world = World(replace(tiny_parts(), heads=heads), 4)
    with running(tmp_path, world, limits={"chunks": None}) as server:
        stage = Stage(load=lambda name: RemoteWorld(server.ws))
        player = stage.opened()
        stage.chunk(3)
        assert player.moment.score.counts == {"star": 3, "fall": 0}
        assert player.moment.score.points == 6
        assert score_words(player) == [("star", "3"), ("points", "6")]
        far = RemoteWorld(server.ws)
        far.reset(1)
        (twin,) = far.fork(1)
        del far
        gc.collect()
        chunk = twin.step("turn left")  # tells the server that the first one is gone
        said = twin.parts.heads(chunk.latents)
        assert_alike(said["reward"], heads(chunk.latents)["reward"])
        twin.close()
        stage.runner.engine.player.world.close()


def test_heads_of_a_server_see_the_chunk_before(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = HeadsConfig(8, 2, (4, 6), ("star",), (1.0,), chunks=2)
    heads = Heads(config).requires_grad_(False)
    near = World(replace(tiny_parts(), heads=heads), 1)
    with running(tmp_path, World(replace(tiny_parts(), heads=heads), 4)) as server:
        far = RemoteWorld(server.ws)
        far.reset(1)
        near.reset(1)
        for command in ("turn left", "walk forward"):
            chunk, same = far.step(command), near.step(command)
            assert chunk.before is not None
            assert_alike(chunk.seen, same.seen)
            assert_alike(far.parts.heads(chunk.seen)["reward"], heads(same.seen)["reward"])
        alone = heads(same.latents)["reward"]
        assert not torch.allclose(heads(same.seen)["reward"], alone, atol=1e-4)
        far.close()


def test_messages_are_what_they_were_and_damage_is_told() -> None:
    arrays = {
        "pixels": np.arange(4096, dtype=np.uint8).reshape(2, 32, 64),
        "latents": np.linspace(0, 1, 7, dtype=np.float32),
        "none": np.zeros((0, 3), np.uint8),
    }
    got = unpack(pack({"a": 1, "b": "ü"}, arrays))
    assert got.fields == {"a": 1, "b": "ü"}
    for name, array in arrays.items():
        assert np.array_equal(got.arrays[name], array)
        assert got.arrays[name].dtype == array.dtype
    whole = pack({}, arrays)
    for cut in (b"", b"\0\0", whole[:20], whole[:-1], b"\xff" * 40):
        with pytest.raises(ValueError, match="cannot be read"):
            unpack(cut)
    with pytest.raises(ValueError, match="float16"):
        pack({}, {"x": np.zeros(2, np.float16)})
    assert torch.from_numpy(got.arrays["latents"]).is_contiguous()


def test_play_remote(server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.chdir(tmp_path)
    assert main(["play", "--remote", server.ws, "--max-seconds", "4"]) == 0
    (session,) = Path("recordings").glob("session-*.jsonl")
    assert '"event": "step"' in session.read_text()
    assert main(["play", "--remote", server.ws, "--steps", "2"]) == 2
    assert main(["play", "--remote", "ws://127.0.0.1:9"]) == 2
