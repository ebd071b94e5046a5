"""Agents by name, for command lines."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from magi_world.agents.protocol import Agent, CallableAgent
from magi_world.agents.random import RandomAgent


def load_agent(name: str) -> Agent:
    """The agent that a name stands for.

    Args:
        name: "random", or "package.module:thing" for an agent, a class or a function without
            arguments that makes one, or a function of (observation, info) that returns commands.

    Raises:
        ValueError: no such thing, or it is none of these.
    """
    if name == "random":
        return RandomAgent()
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"agent is {name!r}; it must be 'random' or 'package.module:thing'")
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
