"""A world: what it is, one step of it, and the state that decides its future."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from magi_world.world.world import World

__all__ = ["World"]


def __getattr__(name: str) -> Any:
    # Late: who wants only the spec loads no torch.
    if name == "World":
        from magi_world.world.world import World

        return World
    raise AttributeError(f"module 'magi_world.world' has no attribute {name!r}")
