"""RecordChunks: films and sessions, written while they happen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

from magi_world.envs import MagiWorldEnv, MagiWorldVectorEnv
from magi_world.envs.record import RecordChunks
from magi_world.envs.wrappers import ChunkToImage, DiscreteCommands
from magi_world.io.media import load_video
from magi_world.session.player import Verdict, replay, verify
from magi_world.session.session import read_session
from magi_world.world.world import World
from tests.tiny import tiny_world, write_tiny_package


def film(path: Path) -> np.ndarray:
    return load_video(path)


def played(env: RecordChunks, texts: tuple[str, ...], **options: Any) -> list[np.ndarray]:
    chunks = [env.reset(**options)[0]]
    chunks += [env.step(text)[0] for text in texts]
    return chunks


def replayed(path: Path, world: World | None = None) -> Verdict:
    verdict = list(verify(read_session(path), world or tiny_world()))[-1]
    assert isinstance(verdict, Verdict)
    return verdict


def test_every_frame_is_in_the_film_and_the_session_repeats_it(tmp_path: Path) -> None:
    env = RecordChunks(MagiWorldEnv(tiny_world()), tmp_path / "new", upscale=4, crf=0)
    seen = played(env, ("turn left", "a cat"), seed=3)
    played(env, ("walk forward",))
    env.close()
    names = sorted(p.name for p in (tmp_path / "new").iterdir())
    assert names == [f"episode-{i:04d}.{kind}" for i in (0, 1) for kind in ("mp4", "session.jsonl")]
    frames = film(tmp_path / "new" / "episode-0000.mp4")
    error = np.abs(frames[:, 1::4, 1::4].astype(int) - np.concatenate(seen))
    assert error.mean() < 12  # noise, coarsened by the codec; another frame would be 60 off
    assert len(film(tmp_path / "new" / "episode-0001.mp4")) == 16
    for number, compared in ((0, 3), (1, 2)):
        verdict = replayed(tmp_path / "new" / f"episode-{number:04d}.session.jsonl")
        assert (verdict.compared, verdict.difference) == (compared, None)


def test_it_records_below_and_above_other_wrappers(tmp_path: Path) -> None:
    inner = RecordChunks(MagiWorldEnv(tiny_world(), observation="latent"), tmp_path, "in")
    outer = RecordChunks(DiscreteCommands(inner), tmp_path, "out", session=False)
    outer.reset(seed=0)
    outer.step(1)
    outer.close()
    assert len(film(tmp_path / "in-0000.mp4")) == len(film(tmp_path / "out-0000.mp4")) == 16
    assert not (tmp_path / "out-0000.session.jsonl").exists()
    assert replayed(tmp_path / "in-0000.session.jsonl").compared == 2


def test_starts_from_files_replay(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "red").save(tmp_path / "red.png")
    env = RecordChunks(MagiWorldEnv(tiny_world(), prompt="a cave"), tmp_path / "r")
    played(env, ("turn left",), seed=1, options={"image": tmp_path / "red.png"})
    played(env, ("turn left",), seed=1, options={"start": "text", "prompt": "sea"})
    env.close()
    for number in (0, 1):
        verdict = replayed(tmp_path / "r" / f"episode-000{number}.session.jsonl")
        assert (verdict.compared, verdict.difference) == (2, None)


def test_frames_of_no_file_and_changed_pasts_replay_from_states(tmp_path: Path) -> None:
    env = RecordChunks(MagiWorldEnv(tiny_world()), tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    seen = played(env, ("turn left",), seed=1, options={"image": picture})[1:]
    state = env.unwrapped.snapshot()
    seen.append(env.step("turn right")[0])
    env.unwrapped.restore(state)
    seen.append(env.step("a cat")[0])
    env.close()
    session = read_session(tmp_path / "episode-0000.session.jsonl")
    again = [chunk.frames[0] for chunk in replay(session, tiny_world())]
    np.testing.assert_array_equal(np.stack(again), np.stack(seen))
    assert len(list(tmp_path.glob("episode-0000.*.safetensors"))) == 2


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    for _ in range(2):
        env = RecordChunks(MagiWorldEnv(tiny_world()), tmp_path, "run1.5", lambda n: n % 2 == 0)
        for seed in range(3):
            env.reset(seed=seed)
        env.close()
    names = sorted(p.name for p in tmp_path.glob("*.mp4"))
    assert names == [f"run1.5-000{i}.mp4" for i in (0, 1, 2, 3)][:1] + names[1:]
    assert len(names) == len(list(tmp_path.glob("*.session.jsonl"))) == 4


def test_a_killed_run_leaves_a_film_and_a_session(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path / "w")
    code = f"""
import os, gymnasium as gym
from magi_world.envs.record import RecordChunks
env = RecordChunks(gym.make("magi_world:MagiWorld-v0", world={str(package)!r}), {str(tmp_path)!r})
env.reset(seed=0)
for _ in range(7):
    env.step("turn left")
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert 64 - 16 <= len(film(tmp_path / "episode-0000.mp4")) <= 64
    session = read_session(tmp_path / "episode-0000.session.jsonl")
    assert session.header.world == str(package)
    assert len(session.events) == 8


def test_only_worlds_are_recorded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="records a MagiWorldEnv"):
        RecordChunks(gym.make("CartPole-v1"), tmp_path)
    with pytest.raises(ValueError, match="crf is 99"):
        RecordChunks(MagiWorldEnv(tiny_world()), tmp_path, crf=99)
    assert isinstance(MagiWorldVectorEnv(1, tiny_world()).render_mode, type(None))


def test_a_wrapped_specification_can_be_made_again(tmp_path: Path) -> None:
    package = str(write_tiny_package(tmp_path / "w"))
    env = ChunkToImage(DiscreteCommands(gym.make("magi_world:MagiWorld-v0", world=package)), 2)
    env = RecordChunks(env, str(tmp_path / "films"))
    again = gym.make(env.spec)
    assert str(again) == str(env)
    np.testing.assert_array_equal(env.reset(seed=0)[0], again.reset(seed=0)[0])
    again.close()
    env.close()


def test_several_workers_share_a_folder_without_loss(tmp_path: Path) -> None:
    workers = [RecordChunks(MagiWorldEnv(tiny_world()), tmp_path) for _ in range(3)]
    for worker in workers:
        played(worker, ("turn left",), seed=1)
    names = [worker.files[0].name for worker in workers]
    assert len(set(names)) == 3
    for worker in workers:
        worker.close()
    assert all(len(film(path)) == 16 for path in tmp_path.glob("*.mp4"))
    assert len(list(tmp_path.glob("*.mp4"))) == 3


def test_a_number_is_claimed_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two workers that look at the same moment see the same free number.
    first = RecordChunks(MagiWorldEnv(tiny_world()), tmp_path)
    played(first, ("turn left",))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "glob", lambda *_: iter(()))
        second = RecordChunks(MagiWorldEnv(tiny_world()), tmp_path)
        played(second, ("turn left",))
    assert first.files[0] != second.files[0]
    first.close(), second.close()


@pytest.mark.parametrize("name", ["run[1]", "a*b", "what?"])
def test_names_with_signs_are_names(name: str, tmp_path: Path) -> None:
    for _ in range(2):
        env = RecordChunks(MagiWorldEnv(tiny_world()), tmp_path, name, session=False)
        played(env, ("turn left",))
        env.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{name}-0000.mp4", f"{name}-0001.mp4"]


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "..", "", ".", 3, None, "a\0b"])
def test_names_that_leave_the_folder_are_refused(name: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name is"):
        RecordChunks(MagiWorldEnv(tiny_world()), tmp_path, name)
