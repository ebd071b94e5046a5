"""Who gives the commands: people, scripts, chance, and what was learned."""

from magi_world.agents.human import HumanAgent
from magi_world.agents.loading import load_agent
from magi_world.agents.protocol import Agent, CallableAgent
from magi_world.agents.random import RandomAgent, RandomConfig
from magi_world.agents.scripted import ScriptedAgent

__all__ = [
    "Agent",
    "CallableAgent",
    "HumanAgent",
    "RandomAgent",
    "RandomConfig",
    "ScriptedAgent",
    "load_agent",
]
