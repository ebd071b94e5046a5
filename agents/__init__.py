"""Who gives the commands: people, scripts, chance, and what was learned."""

from magi_world.agents.basic import (
    Agent,
    CallableAgent,
    HumanAgent,
    RandomAgent,
    RandomConfig,
    ScriptedAgent,
)
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
