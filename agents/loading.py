"""Agents by name, for command lines."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from magi_world.agents.basic import (
    Agent,
    CallableAgent,
    RandomAgent,
    RandomConfig,
    ScriptedAgent,
    checked_command,
)
from magi_world.agents.planning import load_planner
from magi_world.agents.ppo.policy import PolicyAgent, policy_record
from magi_world.envs.real import RealWorldEnv
from magi_world.simulator import load_object
from magi_world.world.spec import WorldSpec

POLICIES = Path(__file__).parent / "policies"  # shipped ones
CHOICES = (
    "'random', 'dreamer', 'constant:COMMAND', 'planner', 'collect', the folder of a "
    "trained policy, 'greedy:FOLDER', or 'package.module:thing'"
)


def load_agent(name: str, seed: int = 0, env: Any = None) -> Agent:
    """The agent that a name stands for.

    Args:
        name:
            "random": every command equally likely.
            "constant:turn left": always this command.
            "planner", "planner:futures=4,chunks=2,world=NAME": `magi_world.agents.planning`, with
                changed options.
            "collect": the policy that recorded the training data; in the real simulator only.
            "dreamer": the policy that comes along, trained in a dream alone.
            a folder with a policy.json: what `magi-world train-agent` wrote; it draws commands with
                the probabilities it learnt. "greedy:FOLDER" (or "greedy:dreamer") always says the
                likeliest.
            "package.module:thing": an agent, a class or a function without arguments that makes
                one, or a function of (observation, info) that returns commands.
        seed: of the choices of an agent that draws them.
        env: where it will play, if that is known.

    Raises:
        ValueError: no such thing, or it is none of these.
    """
    if name == "random":
        return RandomAgent(config=RandomConfig(seed))
    if name == "collect":
        return CollectingAgent(env, seed)
    first, colon, rest = name.partition(":")
    if first == "constant" and colon:
        return ScriptedAgent({1: rest})
    if first == "planner":
        return load_planner(rest, seed, env, lambda policy: load_agent(policy, seed))
    if (folder := policy_folder(name)) is not None:
        return PolicyAgent.load(folder, seed, sample=first != "greedy")
    return _imported(name, first, rest)


def policy_folder(name: str) -> Path | None:
    """The folder of the trained policy that a name stands for; None if it is another agent."""
    bare = name.removeprefix("greedy:")
    places = (Path(bare), POLICIES / bare)
    return next((p for p in places if (p / "policy.json").is_file()), None)


def policies_for(spec: WorldSpec, seed: int = 0) -> dict[str, Agent]:
    """The trained policies that come along and learnt in a world of this name: name -> agent.

    One that sees pictures of another size, or says what the world does not know, is left out.
    """
    found: dict[str, Agent] = {}
    for folder in sorted(POLICIES.glob("*/policy.json")):
        record = policy_record(folder.parent)
        known = set(record.commands) <= {*spec.command_names}
        if record.world == spec.name and record.frame_size == spec.frame_size and known:
            found[folder.parent.name] = PolicyAgent.load(folder.parent, seed)
    return found


def knows(agent: Agent, spec: WorldSpec) -> bool:
    """Whether what an agent says means something to a world, as far as the agent tells."""
    record = getattr(agent, "record", None)
    says = getattr(record, "commands", None)
    return says is None or set(says) <= {*spec.command_names}


def _imported(name: str, module: str, attribute: str) -> Agent:
    if not (module and attribute):
        raise ValueError(f"agent is {name!r}; it must be {CHOICES}")
    try:
        thing: Any = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"agent {name!r} cannot be imported: {error}") from error
    if isinstance(thing, type) or (callable(thing) and not _takes_arguments(thing)):
        thing = thing()
    if hasattr(thing, "act"):
        return thing
    if not callable(thing):
        raise ValueError(
            f"agent {name!r} is a {type(thing).__name__}; it must have act(observation, info), "
            "or be a function of these two"
        )
    return CallableAgent(thing)


def _takes_arguments(function: Any) -> bool:
    code = getattr(function, "__code__", None)
    return hasattr(function, "act") or code is None or code.co_argcount > 0


class CollectingAgent:
    """``record.policy`` of the simulator's configuration.

    It may look at the simulator's inside, so it is no rival for agents that see pictures: it says
    how much there is to get. It plays in a `RealWorldEnv` only.
    """

    def __init__(self, env: object, seed: int = 0) -> None:
        """Args:
            env: where it plays.
            seed: of its choices.

        Raises:
            ValueError: no simulator.
        """
        if not isinstance(env, RealWorldEnv):
            raise ValueError(
                "the collection policy looks at the simulator's inside; it plays in a RealWorldEnv "
                "only (magi-world eval-agent)"
            )
        name = env.config.record.policy
        rng = np.random.default_rng([seed, 1])
        self.policy: Any = load_object(name)(env.simulator.env, list(env.commands), rng)
        self.policy.reset()

    def act(self, observation: np.ndarray, info: Mapping[str, Any]) -> str:
        return checked_command(self.policy.command(), "the collection policy")
