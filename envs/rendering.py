"""What both environments say about rendering."""

from __future__ import annotations

from magi_world.envs.config import RenderMode
from magi_world.world import World

RENDER_MODES = ["human", "rgb_array", "rgb_array_list"]


def render_fps(world: World, mode: RenderMode | None) -> int:
    """How many renders a second are the world's own pace; whole, as `gymnasium.utils.play` asks.

    A frame is rendered once a chunk; in a list, and in a window, there are all of them.
    """
    spec = world.spec
    pace = spec.fps if mode in ("human", "rgb_array_list") else 1 / spec.chunk_seconds
    return max(1, round(pace))
