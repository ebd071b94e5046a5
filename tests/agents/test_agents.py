"""Agents: what they answer, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from magi_world.agents import (
    CallableAgent,
    HumanAgent,
    RandomAgent,
    RandomConfig,
    ScriptedAgent,
    load_agent,
)
from magi_world.agents.loading import POLICIES, policies_for
from magi_world.agents.ppo.policy import read_policy
from magi_world.loading import load_world

FRAMES = np.zeros((8, 32, 48, 3), np.uint8)
COMMANDS = ("stand still", "turn left", "turn right", "walk forward")


def info(chunk: int, prompt: str = "stand still") -> dict[str, object]:
    return {"chunk": chunk, "prompt": prompt, "commands": COMMANDS}


def made_agent() -> RandomAgent:
    return RandomAgent(("walk forward",))


def rule(observation: np.ndarray, info: dict[str, object]) -> str:
    return f"{observation.shape[0]} frames after {info['prompt']}"


def test_random_agent_says_every_command_and_repeats_itself_for_the_same_chunk() -> None:
    said = [RandomAgent().act(FRAMES, info(i)) for i in range(200)]
    assert set(said) == set(COMMANDS)
    assert max(said.count(c) for c in COMMANDS) < 80
    assert said == [RandomAgent(COMMANDS).act(FRAMES, info(i)) for i in range(200)]
    other = RandomAgent(config=RandomConfig(seed=1))
    assert said != [other.act(FRAMES, info(i)) for i in range(200)]


def test_random_agent_holds_a_choice() -> None:
    agent = RandomAgent(config=RandomConfig(hold=5))
    said = [agent.act(FRAMES, info(i)) for i in range(100)]
    assert all(len(set(said[i : i + 5])) == 1 for i in range(0, 100, 5))
    assert len(set(said)) > 1


def test_random_agent_without_commands_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="'commands'"):
        RandomAgent().act(FRAMES, {"chunk": 0})
    with pytest.raises(ValueError, match="commands is empty"):
        RandomAgent(())
    with pytest.raises(ValueError, match="hold is 0"):
        RandomConfig(hold=0)


def test_scripted_agent_says_each_line_from_its_chunk_on() -> None:
    agent = ScriptedAgent({3: "turn left", 5: "walk forward"})
    said = [agent.act(FRAMES, info(chunk, "stand still")) for chunk in range(7)]
    assert said == ["stand still"] * 2 + ["turn left"] * 2 + ["walk forward"] * 3


@pytest.mark.parametrize(
    ("lines", "words"), [({}, "empty"), ({0: "turn left"}, "chunk 0"), ({2: " "}, "at chunk 2")]
)
def test_scripted_agent_refuses_bad_lines(lines: dict[int, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ScriptedAgent(lines)


def test_human_agent_answers_with_what_was_said_last() -> None:
    agent = HumanAgent()
    assert agent.act(FRAMES, info(1, "turn right")) == "turn right"
    agent.say("open the door")
    assert agent.act(FRAMES, info(2)) == "open the door"
    agent.say(None)
    assert agent.act(FRAMES, info(3)) == "stand still"
    with pytest.raises(ValueError, match="the person gave ''"):
        agent.say("")


def test_any_function_is_an_agent_but_must_return_words() -> None:
    assert CallableAgent(rule).act(FRAMES, info(0)) == "8 frames after stand still"
    with pytest.raises(ValueError, match="gave 3"):
        CallableAgent(lambda o, i: 3).act(FRAMES, info(0))  # type: ignore[arg-type,return-value]


def test_agents_are_loaded_by_name() -> None:
    assert isinstance(load_agent("random"), RandomAgent)
    assert load_agent(f"{__name__}:made_agent").act(FRAMES, info(0)) == "walk forward"
    assert load_agent(f"{__name__}:rule").act(FRAMES, info(0)) == "8 frames after stand still"
    assert isinstance(load_agent("magi_world.agents:RandomAgent"), RandomAgent)


@pytest.mark.parametrize("name", ["", "clever", "no.such.module:agent", f"{__name__}:COMMANDS"])
def test_a_wrong_agent_name_is_refused_and_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"agent (is )?{name!r}"):
        load_agent(name)


def test_the_shipped_policy_plays_the_world_it_learnt_in() -> None:
    record, _ = read_policy(POLICIES / "dreamer")
    world = load_world(record.world, num_worlds=8)
    assert list(policies_for(world.spec)) == ["dreamer"]
    assert policies_for(replace(world.spec, name="another")) == {}  # its pictures mean nothing
    assert record.fingerprint == world.spec.fingerprint  # trained in these very weights
    seen = world.reset(seed=0).frames
    for name in ("dreamer", "greedy:dreamer"):
        agents = [load_agent(name, seed=3) for _ in seen]
        said = [a.act(x, {"chunk": 0, "prompt": ""}) for a, x in zip(agents, seen, strict=True)]
        assert set(said) <= set(world.spec.command_names)
        assert len(set(said)) > 1  # it looks at the picture
