"""Training a policy: it learns, stops, goes on, and writes what it says it writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("stable_baselines3", reason="needs the extra sb3")

from magi_world.agents.loading import load_agent
from magi_world.agents.ppo import train
from magi_world.agents.ppo.config import TrainAgentConfig
from magi_world.agents.ppo.envs import dream_env
from magi_world.agents.ppo.policy import PolicyAgent, read_policy
from magi_world.agents.ppo.progress import Episodes, ProgressFile, read_rows
from magi_world.agents.ppo.train import make_learner, policy_weights, train_agent
from magi_world.io.safetensors_io import load_tensors
from magi_world.training.loop import Stopped
from tests.agents.learning_worlds import SMALL, figures, sign_env, tiny_dream


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_tensors(folder / "policy.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def test_it_learns_to_read_signs(tmp_path: Path) -> None:
    config = replace(
        SMALL, num_envs=16, rollout=16, batch=64, steps=2048, epochs=4, learning_rate=2e-3
    )
    lines: list[str] = []
    train_agent(config, tmp_path, lines.append, sign_env(config))
    rows = figures(tmp_path)
    assert len(rows) == 8
    assert lines[0].startswith("beginning: ")
    assert len(lines) == 1 + 8
    assert float(rows[0]["return"]) < 2, "by chance 4/3 of 4"
    assert float(rows[-1]["return"]) > 3.2
    record, net = read_policy(tmp_path)
    assert record.steps == 2048
    pictures = torch.zeros(3, 32, 48, 6, dtype=torch.uint8)
    for sign in range(3):
        pictures[sign, :, sign * 16 : sign * 16 + 16] = 200
    assert net(pictures)[0].argmax(1).tolist() == [0, 1, 2]


def test_files_of_a_run(tmp_path: Path) -> None:
    train_agent(SMALL, tmp_path, env=tiny_dream())
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "step_16", "step_24", "step_32", "step_40", "step_8",
    ]  # fmt: skip
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["step_40"]
    assert same(weights(tmp_path), weights(tmp_path / "checkpoints" / "step_40"))
    assert not same(weights(tmp_path), weights(tmp_path / "checkpoints" / "step_8"))
    record = json.loads((tmp_path / "policy.json").read_text())
    assert (record["world"], record["fingerprint"], record["steps"]) == ("tiny", "tiny", 40)
    assert record["training"]["horizon"] == 3
    rows = read_rows(tmp_path / "progress.csv")
    assert [int(row["steps"]) for row in rows] == [8, 16, 24, 32, 40]
    assert all(0 < float(row["world_share"]) < 1 for row in rows)
    assert all(float(row["frames_per_s"]) > 0 for row in rows)
    assert float(rows[0]["learning_rate"]) > float(rows[-1]["learning_rate"]) > 0
    assert float(rows[1]["events.hit"]) > 0
    assert not list(tmp_path.rglob("*.part"))


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    train_agent(SMALL, tmp_path, env=tiny_dream())
    before = weights(tmp_path), figures(tmp_path)
    train_agent(SMALL, tmp_path, env=tiny_dream())
    assert same(weights(tmp_path), before[0])
    assert figures(tmp_path) == before[1]


class StopAt:
    """`clean_stop` that is asked to stop after so many questions."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __enter__(self) -> StopAt:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("steps_before", [2, 7, 19])
def test_a_stopped_run_goes_on_as_if_nothing_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps_before: int
) -> None:
    train_agent(SMALL, tmp_path / "whole", env=tiny_dream())
    with monkeypatch.context() as patch:
        patch.setattr(train, "clean_stop", lambda: StopAt(steps_before))
        with pytest.raises(Stopped, match="the same command goes on from"):
            train_agent(SMALL, tmp_path / "stopped", env=tiny_dream())
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    train_agent(SMALL, tmp_path / "stopped", env=tiny_dream())
    assert figures(tmp_path / "stopped") == figures(tmp_path / "whole")
    for name in ("", "checkpoints/step_24"):
        one, other = tmp_path / "whole" / name, tmp_path / "stopped" / name
        assert same(weights(one), weights(other))
        assert (one / "policy.safetensors").read_bytes() == (
            other / "policy.safetensors"
        ).read_bytes()


def test_a_killed_run_goes_on_from_its_last_save(tmp_path: Path) -> None:
    train_agent(SMALL, tmp_path / "whole", env=tiny_dream())

    class Killed(Exception):
        pass

    def die(line: str) -> None:
        if line.strip().startswith("32/"):
            raise Killed

    with pytest.raises(Killed):
        train_agent(SMALL, tmp_path / "killed", die, tiny_dream())
    # A kill in the middle of writing leaves such a folder.
    (tmp_path / "killed" / "state" / "step_32.part").mkdir()
    assert len(figures(tmp_path / "killed")) == 4
    train_agent(SMALL, tmp_path / "killed", env=tiny_dream())
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    assert figures(tmp_path / "killed") == figures(tmp_path / "whole")


def test_where_episodes_cannot_be_kept_new_ones_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(train, "clean_stop", lambda: StopAt(6))
        with pytest.raises(Stopped, match="stopped at step 8 of 40"):
            train_agent(SMALL, tmp_path, env=sign_env(SMALL))
    train_agent(SMALL, tmp_path, env=sign_env(SMALL))
    assert [int(row["steps"]) for row in figures(tmp_path)] == [8, 16, 24, 32, 40]


def test_a_run_that_is_done_goes_on_for_more_steps(tmp_path: Path) -> None:
    train_agent(SMALL, tmp_path, env=tiny_dream())
    before = weights(tmp_path)
    more = replace(SMALL, steps=SMALL.steps + 16)
    train_agent(more, tmp_path, env=tiny_dream())
    steps = [int(row["steps"]) for row in figures(tmp_path)]
    assert steps == [8, 16, 24, 32, 40, 48, 56]
    assert not same(before, weights(tmp_path))
    assert read_policy(tmp_path)[0].training["steps"] == more.steps
    # From then on it is a run of so many.
    train_agent(more, tmp_path, env=tiny_dream())
    assert len(figures(tmp_path)) == 7
    with pytest.raises(ValueError, match="steps = 56, not 40; go on with the same or more, or use"):
        train_agent(SMALL, tmp_path, env=tiny_dream())


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    train_agent(SMALL, tmp_path, env=sign_env(SMALL))
    with pytest.raises(ValueError, match=r"was trained with gamma = 0\.95, not 0\.9; go on with"):
        train_agent(replace(SMALL, gamma=0.9), tmp_path, env=sign_env(SMALL))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="is of another version"):
        train_agent(SMALL, tmp_path, env=sign_env(SMALL))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", 0, "steps is 0; it must be at least 1"),
        ("gamma", 1.5, "gamma is 1.5; it must be 0 .. 1"),
        ("learning_rate", 0.0, "learning_rate is 0.0; it must be above 0"),
        ("batch", 100, r"batch is 100; it must divide the chunks of an update \(512"),
        ("frames", 0, "frames is 0; it must be a whole number from 1"),
        ("uncertainty", -1.0, "uncertainty is -1.0; it must be at least 0"),
    ],
)
def test_options_that_cannot_be(field: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TrainAgentConfig(), **{field: value})
    with pytest.raises(ValueError, match="starts is x; it is for a world, but real is set"):
        TrainAgentConfig(real="a.yaml", starts="x")


def test_a_world_without_heads_is_refused() -> None:
    from tests.tiny import tiny_parts

    with pytest.raises(ValueError, match="has no reward heads"):
        dream_env(SMALL, tiny_parts())


def test_the_agent_says_what_ppo_would(tmp_path: Path) -> None:
    config = replace(SMALL, frames=3, every=5)  # further back than one chunk
    env = tiny_dream(config)
    learner = make_learner(config, env)
    torch.manual_seed(5)
    for parameter in learner.policy.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    train_agent(config, tmp_path, env=tiny_dream(config))
    record, net = read_policy(tmp_path)
    net.load_state_dict(policy_weights(learner))
    agent = PolicyAgent(record, net)
    assert learner.env is not None
    seen, indices = learner.env.reset(), []
    for _ in range(7):
        chunk = env.worlds.chunk
        assert chunk is not None
        policy = learner.policy
        theirs = policy.get_distribution(policy.obs_to_tensor(seen)[0])
        wanted = theirs.distribution.probs[0].detach().numpy()
        found = agent.probabilities(chunk.frames[0], chunk.index[0])
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        assert np.ptp(found) > 1e-3, "not the same for all commands"
        indices.append(chunk.index[0])
        seen = learner.env.step(np.array([1, 2]))[0]
    assert max(indices) >= 2
    assert indices.count(0) >= 2, "several episodes"


def test_a_policy_is_an_agent_by_its_folder(tmp_path: Path) -> None:
    train_agent(SMALL, tmp_path, env=tiny_dream())
    frames = np.random.default_rng(0).integers(0, 255, (8, 32, 48, 3), np.uint8)
    agent, greedy = load_agent(str(tmp_path)), load_agent(f"greedy:{tmp_path}")
    said = [agent.act(frames, {"chunk": i}) for i in range(60)]
    assert len(set(said)) > 1
    assert said == [load_agent(str(tmp_path)).act(frames, {"chunk": i}) for i in range(60)]
    other = load_agent(str(tmp_path), seed=1)
    assert said != [other.act(frames, {"chunk": i}) for i in range(60)]
    assert isinstance(agent, PolicyAgent)
    likeliest = agent.record.commands[int(agent.probabilities(frames, 0).argmax())]
    assert {greedy.act(frames, {"chunk": i}) for i in range(20)} == {likeliest}
    with pytest.raises(ValueError, match=r"this policy sees uint8 chunks \(T, 32, 48, 3\)"):
        agent.act(frames[:, :16], {"chunk": 0})
    with pytest.raises(ValueError, match="info has no 'chunk'"):
        agent.act(frames, {})


def test_draws_follow_the_probabilities(tmp_path: Path) -> None:
    train_agent(SMALL, tmp_path, env=tiny_dream())
    record, net = read_policy(tmp_path)
    net.actor.weight.data.zero_()
    net.actor.bias.data = torch.log(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    agent, frames = PolicyAgent(record, net), np.zeros((8, 32, 48, 3), np.uint8)
    said = [agent.act(frames, {"chunk": i}) for i in range(1000)]
    shares = [said.count(command) / 1000 for command in record.commands]
    np.testing.assert_allclose(shares, [0.1, 0.2, 0.3, 0.4], atol=0.05)


def test_damaged_policies_are_refused(tmp_path: Path) -> None:
    train_agent(SMALL, tmp_path, env=sign_env(SMALL))
    path = tmp_path / "policy.json"
    record = json.loads(path.read_text())
    for change, message in (
        ({"schema": 2}, "has schema 2; this package reads 1"),
        ({"commands": ["a"]}, "wrong shape"),
        ({"extra": 1}, "is no policy"),
        ({"weights": "0"}, "is not the file that policy.json was written for"),
    ):
        path.write_text(json.dumps({**record, **change}))
        with pytest.raises(ValueError, match=message):
            read_policy(tmp_path)
    with pytest.raises(FileNotFoundError, match="is no policy"):
        read_policy(tmp_path / "none")


def test_episode_sums() -> None:
    sums = Episodes()
    plain = {"events": {"hit": 0.5, "end": 0.1}, "rewards": {"learned": 1.0, "uncertainty": -2.0}}
    over = {**plain, "TimeLimit.truncated": True}
    sums.add(np.array([0.8, 0.8]), np.array([False, False]), [plain, plain])
    assert sums.take() == {"episodes": 0}
    sums.add(np.array([0.8, 0.8]), np.array([True, False]), [over, plain])
    assert sums.take() == {
        "episodes": 1, "return": 2.0, "reward": 1.6, "length": 2.0, "events.hit": 1.0, "cut": 1.0,
    }  # fmt: skip
    sums.add(np.array([0.0, 0.8]), np.array([False, True]), [plain, plain])
    assert sums.take()["length"] == 3
    assert sums.take() == {"episodes": 0}


def test_rows_that_will_come_again_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    rows = ProgressFile(path)
    for steps in (8, 16, 24):
        rows.add({"steps": steps, "return": None if steps == 8 else 1.5})
    with path.open("a") as file:
        file.write("3")
    again = ProgressFile(path, 16)
    assert [row["steps"] for row in read_rows(path)] == ["8", "16"]
    again.add({"steps": 24, "return": 2.5})
    assert [row["return"] for row in read_rows(path)] == ["", "1.5", "2.5"]
