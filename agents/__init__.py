"""Who gives the commands: people, scripts, chance, and what was learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magi_world.agents.basic import (
    Agent,
    CallableAgent,
    HumanAgent,
    RandomAgent,
    RandomConfig,
    ScriptedAgent,
)

if TYPE_CHECKING:
    from magi_world.agents.loading import load_agent

__all__ = [
    "Agent",
    "CallableAgent",
    "HumanAgent",
    "RandomAgent",
    "RandomConfig",
    "ScriptedAgent",
    "load_agent",
]


def __getattr__(name: str) -> Any:
    # Late: who wants only a configuration loads no torch.
    if name == "load_agent":
        from magi_world.agents.loading import load_agent

        return load_agent
    raise AttributeError(f"module 'magi_world.agents' has no attribute {name!r}")
