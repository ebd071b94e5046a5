"""Worlds as Gymnasium environments."""

from magi_world.envs.env import MagiWorldEnv
from magi_world.envs.vector import MagiWorldVectorEnv

__all__ = ["MagiWorldEnv", "MagiWorldVectorEnv"]
