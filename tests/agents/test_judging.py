"""Judging: fixed seeds, honest figures, nothing lost when it is stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from magi_world.agents import ScriptedAgent, load_agent
from magi_world.agents.judge import (
    Episode,
    Figure,
    JudgeConfig,
    NamedAgent,
    Results,
    Setting,
    agent_digest,
    as_table,
    figures,
    film_episode,
    judge_agent,
    median_episode,
    play_episode,
    table_rows,
)
from magi_world.envs.env import MagiWorldEnv
from magi_world.envs.real import RealWorldEnv
from magi_world.io.media import load_video
from tests.envs.real_toy import toy_config, toy_record
from tests.envs.worlds import fast_world, heads

MAKE = partial(RealWorldEnv, toy_config())


def plain(episodes: list[Episode]) -> list[Episode]:
    """Without how long it took."""
    return [replace(e, seconds=0.0) for e in episodes]


def broken(observation: np.ndarray, info: dict[str, object]) -> str:
    return "fly"


def test_an_episode_adds_up() -> None:
    env = MAKE()
    left = play_episode(NamedAgent("constant:go left"), env, 0)
    assert left.events == {"death": 1.0, "hit": 5.0}
    assert (left.reward, left.survived) == (5 - 2, False)
    env.reset(seed=0)
    assert left.simulator_return == sum(
        info["simulator_reward"] for info in [env.reset(seed=0)[1]] + [
            env.step("go left")[4] for _ in range(left.chunks)
        ]
    )  # fmt: skip
    still = play_episode(NamedAgent("constant:stay"), env, 0)
    assert (still.reward, still.simulator_return, still.chunks) == (0.0, 40.0, 4)
    assert still.survived


def test_processes_and_what_is_known_change_nothing() -> None:
    agent = NamedAgent("random")
    alone = judge_agent(agent, MAKE, JudgeConfig(5, seed=3))
    assert [e.seed for e in alone] == [3, 4, 5, 6, 7]
    assert len({(e.reward, e.simulator_return) for e in alone}) > 1
    played: list[int] = []
    known = [alone[1], alone[4]]
    again = judge_agent(
        agent, MAKE, JudgeConfig(5, seed=3), known, lambda episode: played.append(episode.seed)
    )
    assert played == [3, 5, 6]
    assert plain(again) == plain(alone)


@pytest.mark.slow
def test_several_processes() -> None:
    agent = NamedAgent("random")
    alone = judge_agent(agent, MAKE, JudgeConfig(3))
    assert plain(judge_agent(agent, MAKE, JudgeConfig(3, processes=2))) == plain(alone)
    with pytest.raises(ValueError, match="'fly'"):
        judge_agent(NamedAgent(f"{__name__}:broken"), MAKE, JudgeConfig(2, processes=2))


def test_figures() -> None:
    def episode(seed: int, reward: float, chunks: int) -> Episode:
        return Episode(seed, reward, 2 * reward, {"hit": reward}, chunks, seed < 2, chunks * 0.5)

    some = [episode(0, 1.0, 2), episode(1, 2.0, 2), episode(2, 6.0, 4)]
    found = figures(some)
    assert found["reward"].mean == 3.0
    assert found["reward"].std == pytest.approx(np.sqrt(7))
    assert found["reward"].error == pytest.approx(np.sqrt(7 / 3))
    assert found["survived"].mean == pytest.approx(2 / 3)
    assert found["seconds a decision"].mean == 0.5
    assert median_episode(some).seed == 1
    assert median_episode(some[::-1][:2]).seed == 1
    assert Figure.of([2.0]) == Figure(2.0, None, None)
    for function in (figures, median_episode):
        with pytest.raises(ValueError, match="episodes is empty"):
            function([])


def test_the_collection_policy_plays_as_it_recorded() -> None:
    env = MAKE()
    collect = [play_episode(NamedAgent("collect"), env, seed) for seed in range(4)]
    assert plain(collect) == plain(
        [play_episode(NamedAgent("collect"), env, seed) for seed in range(4)]
    )
    assert len({e.chunks for e in collect}) > 1  # it draws
    with pytest.raises(ValueError, match="RealWorldEnv only"):
        load_agent("collect")


def test_agents_by_name() -> None:
    constant = load_agent("constant:turn left")
    assert isinstance(constant, ScriptedAgent)
    frames = np.zeros((8, 16, 16, 3), np.uint8)
    said = [constant.act(frames, {"chunk": c, "prompt": "stay"}) for c in (0, 1, 50)]
    assert said == ["turn left"] * 3
    choices = {"chunk": 3, "commands": tuple("abcdefgh")}
    assert len({load_agent("random", seed).act(frames, choices) for seed in range(20)}) > 3
    with pytest.raises(ValueError, match="constant:COMMAND"):
        load_agent("clever")


def test_a_film_shows_the_episode(tmp_path: Path) -> None:
    env = MAKE()
    agent = NamedAgent("constant:go left")
    filmed = film_episode(agent, env, 2, tmp_path / "film.mp4")
    assert plain([filmed]) == plain([play_episode(agent, env, 2)])
    assert len(load_video(tmp_path / "film.mp4")) == 8 * (1 + filmed.chunks)


def test_results_are_kept_and_guarded(tmp_path: Path) -> None:
    path, setting = tmp_path / "deep" / "r.json", Setting.of(toy_config())
    results = Results(setting, path)
    assert results.open("random") == []
    episodes = judge_agent(NamedAgent("random"), MAKE, JudgeConfig(2))
    for episode in episodes[::-1]:
        results.add("random", episode)
    again = Results(setting, path)
    assert again.open("random") == episodes
    assert again.agents == ("random",)
    assert json.loads(path.read_text())["agents"]["random"]["figures"]["reward"]["mean"] == (
        figures(episodes)["reward"].mean
    )
    with pytest.raises(ValueError, match="another 'random'"):
        again.open("random", "changed")
    with pytest.raises(ValueError, match="max_chunks=3"):
        Results(Setting.of(toy_config(), 3), path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="no file of results"):
        Results(setting, path)


def test_a_setting_is_what_decides_an_episode() -> None:
    config = toy_config()
    assert Setting.of(replace(config, seed=5)) == Setting.of(config)
    assert Setting.of(replace(config, record=toy_record(seed=9))) == Setting.of(config)
    worth = replace(config.heads, reward={"hit": 2.0})
    assert Setting.of(replace(config, heads=worth)) != Setting.of(config)
    assert Setting.of(replace(config, default_command="go left")) != Setting.of(config)


def test_a_policy_is_known_by_its_files(tmp_path: Path) -> None:
    assert agent_digest("random") == agent_digest(str(tmp_path)) == ""
    (tmp_path / "policy.json").write_text("{}")
    one = agent_digest(str(tmp_path))
    (tmp_path / "policy.safetensors").write_bytes(b"1")
    two = agent_digest(str(tmp_path))
    assert len({"", one, two}) == 3
    assert agent_digest(f"greedy:{tmp_path}") == two


def test_tables() -> None:
    one = Episode(0, 1.5, 9.0, {"hit": 2.0}, 4, True, 0.02)
    two = replace(one, seed=1, reward=2.5, cost={"imagined chunks": 8.0})
    rows = table_rows({"a": [one, replace(one, seed=1, reward=2.5)], "b c": [two], "none": []})
    assert [row[:4] for row in rows[1:]] == [
        ["a", "2", "2.00 ± 0.50", "0.71"],
        ["b c", "1", "2.50", ""],
    ]
    assert rows[0][-1] == "imagined chunks a decision"
    assert [row[-1] for row in rows[1:]] == ["", "2.00"]
    lines = as_table(rows).splitlines()
    assert lines[1].startswith("a    ")
    lines = as_table(rows, "pipe").splitlines()
    assert [cell.strip() for cell in lines[2].split("|")][1:5] == ["a", "2", "2.00 ± 0.50", "0.71"]
    assert len(lines) == 4


def test_a_game_may_have_scores_of_its_own(tmp_path: Path) -> None:
    def scores(events: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {"most hits": max(e["hit"] for e in events)}

    results = Results(Setting.of(toy_config()), tmp_path / "r.json", scores)
    results.open("a")
    for seed, hits in enumerate((2.0, 5.0)):
        results.add("a", Episode(seed, 1.0, None, {"hit": hits}, 4, True, 0.0))
    head, row = results.rows()
    assert row[head.index("most hits")] == "5.00"
    kept = json.loads((tmp_path / "r.json").read_text())["agents"]["a"]["figures"]
    assert kept["most hits"] == {"mean": 5.0, "std": None, "error": None}


def test_a_dream_is_judged_alike() -> None:
    make = partial(MagiWorldEnv, fast_world(heads=heads()), max_chunks=3)
    (one,) = judge_agent(NamedAgent("random"), make, JudgeConfig(1, seed=2))
    env, agent = make(), load_agent("random", 2)
    frames, info = env.reset(seed=2)
    total, hits = 0.0, 0.0
    for _ in range(3):
        command = agent.act(frames, {**info, "commands": env.action_space.commands})
        frames, reward, _, _, info = env.step(command)
        total, hits = total + reward, hits + info["events"]["hit"]
    assert (one.reward, one.events["hit"], one.chunks) == (total, hits, 3)
    assert one.simulator_return is None
    assert "simulator_return" not in figures([one])
    assert "simulator_return" not in table_rows({"random": [one]})[0]
