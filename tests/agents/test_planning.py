"""Planning: futures are those of the world, and trying them changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from magi_world.agents.basic import ScriptedAgent
from magi_world.agents.loading import load_agent
from magi_world.agents.planning import PlanningAgent, PlanningConfig, load_planner
from magi_world.envs.env import MagiWorldEnv
from magi_world.world.world import World
from tests.envs.worlds import Ends, fast_world
from tests.tiny import COMMANDS, tiny_world


def quarter(latents: torch.Tensor) -> torch.Tensor:
    """Every chunk is the last one with probability one quarter."""
    return torch.full((len(latents),), 0.25)


def world() -> World:
    return fast_world(heads=Ends(quarter))


def by_hand(
    start: World, config: PlanningConfig, seeds: list[int], commands: list[str]
) -> np.ndarray:
    """(futures,) returns of the first command and what follows, one world at a time."""
    returns = []
    for seed in seeds:
        (twin,) = start.fork(1)
        twin.restore(twin.snapshot().reseeded(seed))
        total, alive = 0.0, 1.0
        for depth, command in enumerate(commands):
            said = start.parts.heads(twin.step_latents(command).latents)  # type: ignore[misc]
            total += alive * config.discount**depth * float(said["reward"])
            alive *= 1 - float(said["end"])
        returns.append(total)
    return np.array(returns)


def test_values_are_those_of_futures_made_one_by_one() -> None:
    config = PlanningConfig(chunks=3, futures=2, discount=0.9, seed=4)
    start = world()
    start.reset(seed=1)
    start.step("turn right")
    agent = PlanningAgent(start, config)
    found = agent.values(start.snapshot(), COMMANDS, turn=1)
    seeds = [agent._noise(1, future) for future in range(2)]
    assert seeds[0] != seeds[1]
    expected = [by_hand(start, config, seeds, [c] * 3) for c in COMMANDS]
    np.testing.assert_allclose(found, np.mean(expected, 1), rtol=1e-4)
    assert np.ptp(found) > 1e-3, "commands must differ, or the test says nothing"
    strict = PlanningAgent(start, replace(config, penalty=2.0))
    spread = np.std(expected, axis=1, ddof=1)
    np.testing.assert_allclose(
        strict.values(start.snapshot(), COMMANDS, 1), np.mean(expected, 1) - 2 * spread, rtol=1e-3
    )
    assert agent.cost == {"imagined chunks": 3 * 2 * len(COMMANDS)}


def test_random_continuations_are_shared_by_all_first_commands() -> None:
    config = PlanningConfig(chunks=2, futures=3, continuation="random")
    agent = PlanningAgent(world(), config)
    said = [c for c in COMMANDS for _ in range(3)]
    draw: Any = agent._continued
    after = np.array(draw(said, COMMANDS, None, None, 5, 1)).reshape(len(COMMANDS), 3)
    assert (after == after[0]).all()
    turns = [draw(said, COMMANDS, None, None, turn, 1)[:3] for turn in range(20)]
    assert {c for turn in turns for c in turn} == set(COMMANDS)


def test_a_policy_goes_on_with_the_futures() -> None:
    start = world()
    start.reset(seed=0)
    config = PlanningConfig(chunks=2, futures=1)
    plain = PlanningAgent(start, config)
    led = PlanningAgent(start, config, policy=ScriptedAgent({1: "turn left"}))
    seeds = [plain._noise(0, 0)]
    expected = [by_hand(start, config, seeds, [c, "turn left"])[0] for c in COMMANDS]
    found = led.values(start.snapshot(), COMMANDS, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert not np.allclose(found, plain.values(start.snapshot(), COMMANDS, 0))


def test_in_the_dream_it_says_the_best_and_leaves_the_dream_alone() -> None:
    env, alone = MagiWorldEnv(world()), MagiWorldEnv(world())
    agent = PlanningAgent(env.world, PlanningConfig(chunks=2, seed=3), env)
    frames, info = env.reset(seed=5)
    alone.reset(seed=5)
    said = []
    for _ in range(4):
        values = agent.values(env.world.snapshot(), COMMANDS, info["chunk"])
        said.append(agent.act(frames, info))
        assert said[-1] == COMMANDS[int(values.argmax())]
        frames, _, _, _, info = env.step(said[-1])
        assert np.array_equal(frames, alone.step(said[-1])[0])
    again = PlanningAgent(alone.world, PlanningConfig(chunks=2, seed=3), alone)
    frames, info = alone.reset(seed=5)
    for command in said:
        assert again.act(frames, info) == command
        frames, _, _, _, info = alone.step(command)


def test_with_frames_only_it_sees_the_newest_and_forgets_at_the_start() -> None:
    chunks = np.random.default_rng(0).integers(0, 255, (6, 8, 32, 48, 3), np.uint8)
    config = PlanningConfig(chunks=1, futures=1, history=2)

    def situation(agent: PlanningAgent, episode: list[int]) -> torch.Tensor:
        for chunk, which in enumerate(episode):
            agent.act(chunks[which], {"chunk": chunk})
        state = agent._one.snapshot().state
        return torch.stack(state.cache.clean())

    base = situation(PlanningAgent(world(), config), [0, 1, 2])
    assert torch.equal(base, situation(PlanningAgent(world(), config), [3, 1, 2]))
    assert not torch.equal(base, situation(PlanningAgent(world(), config), [0, 3, 2]))
    used = PlanningAgent(world(), config)
    situation(used, [4, 5, 3])
    assert torch.equal(situation(used, [1, 2]), situation(PlanningAgent(world(), config), [1, 2]))
    with pytest.raises(ValueError, match="video has shape"):
        used.act(np.zeros((8, 16, 16, 3), np.uint8), {"chunk": 0})
    with pytest.raises(ValueError, match="'chunk'"):
        used.act(chunks[0], {})


def test_it_plans_with_the_commands_that_it_is_given() -> None:
    agent = PlanningAgent(world(), PlanningConfig(chunks=1, futures=1))
    frames = np.zeros((8, 32, 48, 3), np.uint8)
    assert agent.act(frames, {"chunk": 0, "commands": ("go to the cave",)}) == "go to the cave"
    assert agent.act(frames, {"chunk": 1}) in COMMANDS


def test_options_in_words() -> None:
    env = MagiWorldEnv(world())
    env.reset(seed=0)
    agent = load_planner("futures=3, chunks=2,penalty=0.5,continuation=random", 7, env)
    assert agent.config == PlanningConfig(2, 3, penalty=0.5, continuation="random", seed=7)
    assert agent.env is env
    led = load_planner("policy=constant:turn left", env=env, load_policy=load_agent)
    assert led.policy is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("futures", "'futures' is no option"),
        ("depth=2", "'depth'"),
        ("futures=many", "futures is 'many'; it must be of type int"),
        ("chunks=0", "chunks is 0"),
        ("penalty=1,futures=1", "one has no spread"),
        ("continuation=clever", "continuation is 'clever'"),
        ("discount=2", "discount is 2"),
    ],
)
def test_wrong_options_are_named(options: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load_planner(options, env=MagiWorldEnv(world()))


def test_what_it_needs_is_said() -> None:
    with pytest.raises(ValueError, match="no reward heads"):
        PlanningAgent(tiny_world())
    with pytest.raises(ValueError, match="planner:world=NAME"):
        load_planner("")
    pair = fast_world(2, heads=Ends(quarter))
    pair.reset(seed=0)
    with pytest.raises(ValueError, match="has 2 worlds"):
        PlanningAgent(pair).values(pair.snapshot(), COMMANDS, 0)
