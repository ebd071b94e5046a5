"""What learning is made of beside the learner: starts, penalty, curves, command."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

pytest.importorskip("stable_baselines3", reason="needs the extra sb3")

from magi_world import loading
from magi_world.agents.loading import load_agent
from magi_world.agents.ppo.config import TrainAgentConfig
from magi_world.agents.ppo.curves import (
    Compared,
    compare_checkpoints,
    correlation,
    draw_comparison,
    draw_returns,
    read_curve,
)
from magi_world.agents.ppo.envs import dream_env, open_env, recorded_starts, with_starts
from magi_world.agents.ppo.policy import read_policy
from magi_world.agents.ppo.train import train_agent
from magi_world.demos import cli
from magi_world.demos.commands.agents import TrainAgent
from magi_world.envs.rewards import Moment, Reward, UncertaintyConfig, UncertaintyPenalty
from magi_world.io.media import load_image
from magi_world.io.package import write_package
from magi_world.io.safetensors_io import load_tensors, save_tensors
from magi_world.world.world import World
from tests.agents.learning_worlds import SMALL, sign_env
from tests.envs.real_toy import SHIPPED, toy_config
from tests.envs.worlds import heads
from tests.tiny import tiny_parts, tiny_text

LINE = [
    "--num-envs=2", "--horizon=3", "--rollout=4", "--batch=8", "--epochs=1", "--features=16",
    "--seed=3",
]  # fmt: skip


def shards(folder: Path, episodes: tuple[int, ...] = (6, 5, 2)) -> Path:
    """A recording of tiny chunks; every frame of chunk i has the brightness 10 i."""
    count = sum(episodes)
    frames = torch.arange(count)[:, None, None, None, None].expand(-1, 8, 32, 48, 3) * 10
    episode = torch.repeat_interleave(torch.arange(len(episodes)), torch.tensor(episodes))
    columns = {name: torch.zeros(count) for name in ("command", "reward", "end")}
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(
        folder / "shard_0000.safetensors",
        {
            "frames": frames.to(torch.uint8).contiguous(),
            "episode": episode,
            "events": torch.zeros(count, 1),
            **columns,
        },
    )
    return folder


def test_recorded_starts_are_what_the_world_shows(tmp_path: Path) -> None:
    parts = tiny_parts()
    folder = shards(tmp_path / "run" / "data")
    found = recorded_starts(parts, folder, 10, seed=0)
    # Two chunks, with three behind them: from rows 0 and 1 of the first episode, 6 of the next.
    assert found.shape == (3, 8, 4, 4, 6)
    assert torch.equal(recorded_starts(parts, tmp_path / "run", 10, seed=0), found)
    grown = with_starts(parts, found)
    assert grown.spec.num_starts == 6
    assert grown.spec.fingerprint == parts.spec.fingerprint
    ours, theirs = World(grown), World(parts)
    video = np.repeat(np.array([0, 10], np.uint8), 8)[:, None, None, None]
    given = np.ascontiguousarray(np.broadcast_to(video, (16, 32, 48, 3)))
    ours.reset(seed=0, start=3)
    theirs.reset(seed=0, video=given)
    one, other = ours.step("turn left"), theirs.step("turn left")
    np.testing.assert_allclose(one.latents, other.latents, atol=1e-4)
    assert len({tuple(ours.reset(seed=s).latents.flatten()[:4].tolist()) for s in range(60)}) == 6


def test_starts_before_an_event(tmp_path: Path) -> None:
    parts, count = tiny_parts(), 9
    frames = torch.arange(count).view(-1, 1, 1, 1, 1).expand(-1, 8, 32, 48, 3)
    events = torch.zeros(count, 2)
    events[5, 1] = 1
    names = {"commands": ["walk"], "events": ["fall", "coin"]}
    zeros = {name: torch.zeros(count) for name in ("command", "reward", "end", "episode")}
    tensors = {"frames": (10 * frames).byte().contiguous(), "events": events, **zeros}
    save_file(tensors, tmp_path / "shard_0000.safetensors", {"names": json.dumps(names)})
    # Two chunks are a start, the coin comes in one of the three behind: rows 1, 2 and 3 of 0 to 4.
    found = recorded_starts(parts, tmp_path, 10, 0, "coin")
    every = recorded_starts(parts, tmp_path, 10, 0)
    assert torch.equal(found, every[1:4])
    with pytest.raises(ValueError, match="no event 'gem'; the recording's events are fall, coin"):
        recorded_starts(parts, tmp_path, 10, 0, "gem")
    with pytest.raises(ValueError, match="starts_before is 'fall'; it follows no clip"):
        recorded_starts(parts, tmp_path, 10, 0, "fall")
    with pytest.raises(ValueError, match="starts_before is 'coin', but starts is None"):
        TrainAgentConfig(starts_before="coin")


def test_recordings_that_do_not_fit(tmp_path: Path) -> None:
    parts = tiny_parts()
    with pytest.raises(ValueError, match="has 0 shards"):
        recorded_starts(parts, tmp_path, 3, 0)
    short = shards(tmp_path / "short", (4, 3))
    with pytest.raises(ValueError, match="has no episode of 5 chunks"):
        recorded_starts(parts, short, 3, 0)
    small = replace(parts, spec=replace(parts.spec, frame_size=(16, 16)))
    with pytest.raises(ValueError, match=r"has chunks of shape \(8, 32, 48, 3\); tiny needs"):
        recorded_starts(small, short, 3, 0)


def moment(latents: Tensor) -> Moment:
    chunk: Any = SimpleNamespace(seen=latents)
    return Moment(chunk, [{}] * len(latents), [0] * len(latents))


def test_a_reward_that_hangs_by_a_hair_costs() -> None:
    def edge(latents: Tensor) -> dict[str, Any]:
        return {"reward": torch.sigmoid(50 * latents.mean((1, 2, 3, 4)))}

    penalty = UncertaintyPenalty(edge)
    assert isinstance(penalty, Reward)
    latents = torch.zeros(3, 8, 2, 4, 6)
    latents[1], latents[2] = 1.0, -1.0
    score = penalty.score(moment(latents))
    assert score.reward[0] < -0.05
    assert (np.abs(score.reward[1:]) < 1e-3).all()
    assert not score.ended.any()
    assert (penalty.score(moment(latents[:1])).reward == score.reward[:1]).all(), "batch and alone"
    less = UncertaintyPenalty(edge, UncertaintyConfig(noise=0.02)).score(moment(latents))
    assert score.reward[0] < less.reward[0] < 0
    for given, message in (({"noise": 0}, "noise is 0"), ({"samples": 1}, "samples is 1")):
        with pytest.raises(ValueError, match=message):
            UncertaintyConfig(**given)


def test_the_penalty_is_learnt_from_and_told_apart(tmp_path: Path) -> None:
    config = replace(SMALL, uncertainty=3.0, steps=8)
    train_agent(config, tmp_path, env=dream_env(config, replace(tiny_parts(), heads=heads(-1.0))))
    steps, returns = read_curve(tmp_path)
    assert steps.tolist() == [8]
    assert read_curve(tmp_path, "reward")[1][0] < returns[0] - 1e-4


def results(folder: Path, name: str, means: dict[str, float]) -> Path:
    agents = {k: {"figures": {"reward": {"mean": v, "error": 0.1}}} for k, v in means.items()}
    (folder / name).write_text(json.dumps({"agents": agents}))
    return folder / name


def test_curves(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = tmp_path / "run"
    train_agent(SMALL, run, env=sign_env(SMALL))
    other = tmp_path / "other"
    train_agent(replace(SMALL, seed=1), other, env=sign_env(SMALL))
    steps, values = read_curve(run)
    assert steps.tolist() == [8, 16, 24, 32, 40]
    assert read_curve(run, window=2)[1][2] == pytest.approx(values[1:3].mean())
    checkpoints = run / "checkpoints"
    judged = {str(checkpoints / f"step_{s}"): s / 10 for s in (8, 24, 40)}
    elsewhere = {"random": 9.0, str(other / "checkpoints" / "step_8"): 9.0}
    real = results(tmp_path, "real.json", {**judged, **elsewhere})
    pairs = compare_checkpoints(run, real, window=1)
    assert [(p.steps, p.real) for p in pairs] == [(8, 0.8), (24, 2.4), (40, 4.0)]
    assert [p.dream for p in pairs] == pytest.approx(values[::2].tolist())
    dream = results(tmp_path, "dream.json", {name: 1 - v for name, v in judged.items()})
    assert correlation(compare_checkpoints(run, real, dream)) == pytest.approx(-1)
    assert np.isnan(correlation([Compared(1, 1.0, 1.0, None)] * 5))
    for picture in (
        draw_returns({"run": run, "other": other}, tmp_path / "a.png"),
        draw_comparison(pairs, tmp_path / "b.png"),
    ):
        assert load_image(picture).std() > 1
    with pytest.raises(ValueError, match="has no checkpoint of"):
        compare_checkpoints(run, results(tmp_path, "no.json", elsewhere))
    with pytest.raises(ValueError, match=r"has no progress\.csv with values of 'luck'"):
        draw_returns({"run": run}, tmp_path / "a.png", "luck")


def test_the_command_offers_every_option() -> None:
    known = {f.name for f in fields(TrainAgent)}
    assert known >= {f.name for f in fields(TrainAgentConfig)}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A world with heads, installed as "dreamy", and a folder to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "SHIPPED", tmp_path / "worlds")
    monkeypatch.setattr(loading, "INSTALLED", tmp_path / "none")
    parts = tiny_parts()
    spec, text = replace(parts.spec, name="dreamy"), tiny_text(tmp_path / "text")
    made = replace(parts, spec=spec, text=text, heads=heads(-1.0))
    write_package(tmp_path / "worlds" / "dreamy", made, torch.float32)
    return tmp_path


def test_train_agent_from_the_command_line(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards(world / "recording")
    extra = ["--starts", "recording", "--noise-scale", "1.2", "--uncertainty", "0.5"]
    line = ["train-agent", "--world", "dreamy", *LINE, *extra, "--steps", "24"]
    assert cli.main(line) == 0
    told = capsys.readouterr()
    assert told.out.startswith("24 steps in ")
    assert "of the time in the world" in told.out
    assert told.err.count(" steps/s, ") == 3
    run = Path("runs/agent-dreamy")
    assert len(load_tensors(run / "starts.safetensors")["starts"]) == 3
    assert read_policy(run)[0].training["noise_scale"] == 1.2
    assert (run / "curves.png").is_file()
    assert cli.main(["train-agent", "--run", str(run), "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["steps"] == 24
    assert told.err == "", "nothing was trained again"
    assert cli.main(["train-agent", "--run", str(run), "--gamma", "0.5"]) == 2
    assert "was trained with gamma = 0.95, not 0.5" in capsys.readouterr().err
    judged = results(world, "r.json", {f"{run}/checkpoints/step_{s}": s for s in (8, 16, 24)})
    assert cli.main(["train-agent", "--run", str(run), "--judged", str(judged)]) == 0
    assert str(run / "judged.png") in capsys.readouterr().out


def test_what_was_asked_for_reaches_the_world(world: Path) -> None:
    config = replace(
        SMALL, world="dreamy", noise_scale=0.7, denoise_steps=8, sample_end=False, horizon=5
    )
    env = open_env(config, world)
    assert env.pictures is not None
    inside = env.worlds.world
    assert inside.config.noise_scale == 0.7
    assert inside.parts.config.sampler.num_steps == 8
    assert env.worlds._rollout.config.max_chunks == 5


def test_a_policy_may_say_some_commands_only(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["train-agent", "--world", "dreamy", *LINE, "--steps=8", "--commands"]
    assert cli.main([*line, "walk forward, turn left"]) == 0
    record, net = read_policy("runs/agent-dreamy")
    assert record.commands == ("walk forward", "turn left")
    assert net.actor.out_features == 2
    agent, frames = load_agent("runs/agent-dreamy"), np.zeros((8, 32, 48, 3), np.uint8)
    assert {agent.act(frames, {"chunk": i}) for i in range(40)} == set(record.commands)
    for said, message in (
        ("walk forward,fly", "commands has 'fly'; this world obeys 'stand still', "),
        ("walk forward", r"it must be two or more different ones"),
        ("turn left,turn left", r"it must be two or more different ones"),
    ):
        capsys.readouterr()
        assert cli.main([*line, said, "--run", "other"]) == 2
        assert message in capsys.readouterr().err


def test_training_in_the_simulator(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, toy = yaml.safe_load(SHIPPED.read_text()), toy_config()
    del config["record"]["scenes"]
    config["record"].update(
        {
            "env": toy.record.env, "policy": toy.record.policy, "env_options": {},
            "events": {"hit": {"key": "hits", "index": 0}},
            "actions": dict(toy.record.actions), "frame_size": [16, 16],
        }
    )  # fmt: skip
    config["commands"] = {name: {"phrases": [f"please {name}"]} for name in toy.record.actions}
    config["heads"].update({"events": ["hit", "death"], "reward": dict(toy.heads.reward)})
    config.update({"name": "bar", "default_command": "stay", "starts_before": ""})
    Path("bar.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    assert cli.main(["train-agent", "--real", "bar.yaml", *LINE, "--steps", "16"]) == 0
    run = Path("runs/agent-bar-real")
    record, _ = read_policy(run)
    assert (record.world, record.commands) == ("bar", ("stay", "go left", "go right"))
    assert read_curve(run, "events.hit")[1].max() > 0
    assert "of the time in the world" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--world nowhere", "there is no world 'nowhere'"),
        ("--world dreamy --horizon 3 --batch 100", "batch is 100; it must divide"),
        ("--real none.yaml", "No such file or directory"),
        ("--world dreamy --device cude", "--device cude cannot be used here"),
        ("--world dreamy --starts nowhere", "nowhere/data has 0 shards"),
    ],
)
def test_mistakes_end_with_one_line(
    world: Path, line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train-agent", *line.split()]) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.count("\n") == 1
