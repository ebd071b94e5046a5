"""Long jobs killed (SIGKILL) at any moment, again and again: nothing is lost, and they come to the
same end. A few kills of each in every run, many under the marker slow."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from magi_world.agents.dreaming import DreamConfig, dream, local_pool, unit_file
from magi_world.agents.judge import Episode, Results, Setting
from magi_world.agents.ppo.policy import read_policy
from magi_world.demos import resume
from magi_world.demos.record import RecordConfig, record
from magi_world.demos.render import PictureConfig
from magi_world.envs import MagiWorldEnv
from magi_world.envs.record import RecordChunks
from magi_world.envs.state import EnvSnapshot
from magi_world.io.media import load_video
from magi_world.session.script import read_script
from magi_world.session.session import SessionWriter, read_session
from tests.agents.learning_worlds import SMALL, tiny_dream
from tests.agents.ray_worlds import write_world
from tests.killing import killed, took, until_done
from tests.tiny import tiny_world

slow = pytest.mark.slow
few_or_many = pytest.mark.parametrize("kills", [3, pytest.param(20, marks=slow)])


@few_or_many
def test_a_film_comes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    monkeypatch.setattr(resume, "STATE_EVERY", 0)
    (tmp_path / "a.yaml").write_text("world: tiny\nscript:\n  - {say: turn left, for: 24}\n")
    world = tiny_world()
    session = read_script(tmp_path / "a.yaml").session(world)
    picture = PictureConfig(upscale=2)

    def job(folder: Path) -> None:
        there = (folder / "a.mp4.resume" / "plan.json").is_file()
        config = RecordConfig(picture, overwrite=not there, resume=there, quiet=True)
        record(session, world, [folder / "a.mp4"], config)

    unit = took(lambda: job(tmp_path / "whole"))
    done = until_done("record", lambda: job(tmp_path / "cut"), unit, kills)
    assert done > 1
    for name in ("a.mp4", "a.session.jsonl"):
        same = (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
        assert same, f"{name} after {done} kills"
    left = {p.name for p in (tmp_path / "cut").iterdir()}
    assert left <= {"a.mp4", "a.session.jsonl", ".a.mp4.resume.lock"}


@few_or_many
def test_a_saved_state_is_the_older_or_the_newer(tmp_path: Path, kills: int) -> None:
    path = tmp_path / "a.safetensors"
    env = MagiWorldEnv(tiny_world())
    env.reset(seed=1)
    states = [env.snapshot()]
    for command in ("turn left", "walk forward"):
        env.step(command)
        states.append(env.snapshot())
    states[0].save(path)

    def job() -> None:
        for number in range(100_000):
            states[number % 3].save(path)

    chance = random.Random(3)
    for _ in range(kills):
        assert not killed("save", job, chance.uniform(0.005, 0.06))
        found = EnvSnapshot.load(path)
        want = states[found.chunk.index[0]]
        assert torch.equal(found.chunk.latents, want.chunk.latents)
        assert torch.equal(found.world.state.cache.clean()[0], want.world.state.cache.clean()[0])


@few_or_many
def test_judged_episodes_are_never_fewer(tmp_path: Path, kills: int) -> None:
    path = tmp_path / "r.json"
    setting = Setting("bar", "0")

    def job() -> None:
        results = Results(setting, path)
        with results.alone():
            known = {episode.seed for episode in results.open("random")}
            for seed in range(200):
                if seed not in known:
                    results.add("random", Episode(seed, 1.0, None, {"hit": 2.0}, 4, True, 0.1))

    before, chance = 0, random.Random(5)
    for _ in range(kills):
        if killed("eval-agent", job, chance.uniform(0.01, 0.2)):
            break
        now = len(Results(setting, path).open("random")) if path.exists() else 0
        assert now >= before
        before = now
    assert killed("eval-agent", job, 600)
    assert len(Results(setting, path).open("random")) == 200


@few_or_many
def test_a_trained_policy_is_the_same(tmp_path: Path, kills: int) -> None:
    pytest.importorskip("stable_baselines3", reason="needs the extra sb3")
    from magi_world.agents.ppo.train import train_agent

    config = replace(SMALL, save_seconds=0.0)
    unit = took(lambda: train_agent(config, tmp_path / "whole", env=tiny_dream()))

    def job() -> None:
        train_agent(config, tmp_path / "cut", env=tiny_dream())

    done = until_done("train-agent", job, unit, kills)
    assert done > 1
    (one, net), (two, other) = (read_policy(tmp_path / name) for name in ("whole", "cut"))
    assert one.steps == two.steps
    for name, weight in net.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), f"{name} after {done} kills"


@few_or_many
def test_dreamed_episodes_are_the_same(tmp_path: Path, kills: int) -> None:
    source = str(write_world(tmp_path / "tiny"))
    config = DreamConfig(source, episodes=12, chunks=4, batch=1, seed=7, device="cpu")

    def job(folder: Path) -> None:
        dream(config, folder, local_pool(1), lambda done, total: None)

    unit = took(lambda: job(tmp_path / "whole"))
    done = until_done("dream-dataset", lambda: job(tmp_path / "cut"), unit, kills)
    assert done > 1
    for number in config.units:
        one, two = (unit_file(tmp_path / name, number) for name in ("whole", "cut"))
        assert one.read_bytes() == two.read_bytes(), f"unit {number} after {done} kills"


@few_or_many
def test_sessions_and_films_of_episodes_stay_readable(tmp_path: Path, kills: int) -> None:
    world = tiny_world()

    def played() -> None:
        env = RecordChunks(MagiWorldEnv(world), tmp_path / "films", upscale=2)
        while True:
            env.reset(seed=1)
            for _ in range(4):
                env.step("turn left")

    def told() -> None:
        world.reset(seed=1)
        with SessionWriter(tmp_path / f"{os.getpid()}.jsonl", world) as writer:
            while True:
                writer.step(world.step("turn left"))

    env = RecordChunks(MagiWorldEnv(world), tmp_path / "first", upscale=2)
    unit = took(lambda: [env.reset(seed=1), *(env.step("turn left") for _ in range(4))])
    env.close()
    chance = random.Random(9)
    cut = max(2, kills // 2)
    for _ in range(cut):
        assert not killed("films of episodes", played, chance.uniform(1.5, 5) * unit)
        assert not killed("session", told, chance.uniform(0.1, 1) * unit)
    for path in tmp_path.rglob("*.jsonl"):
        if path.stat().st_size:
            assert read_session(path).header.world == "tiny"
    # What was killed is readable but for its last second; an episode that ended is whole.
    films = [film for film in (tmp_path / "films").glob("*.mp4") if film.stat().st_size > 2_000]
    lengths = [len(load_video(film)) for film in films]
    assert max(lengths) == 40
    assert lengths.count(40) >= len(films) - cut
