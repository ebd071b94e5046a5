"""magi-world: a live video world that obeys text, one chunk at a time.

Importing this registers the Gymnasium environment by name and does nothing else; torch is loaded
with the first public name that is used.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register

if TYPE_CHECKING:
    from magi_world.loading import LoadOptions, list_worlds, load_world
    from magi_world.remote.world import RemoteWorld
    from magi_world.world.chunk import Chunk
    from magi_world.world.snapshot import Snapshot
    from magi_world.world.spec import WorldSpec
    from magi_world.world.world import World

__version__ = "0.1.0"
__all__ = [
    "Chunk",
    "LoadOptions",
    "RemoteWorld",
    "Snapshot",
    "World",
    "WorldSpec",
    "list_worlds",
    "load_world",
]

_HOME = {
    "Chunk": "magi_world.world.chunk",
    "LoadOptions": "magi_world.loading",
    "RemoteWorld": "magi_world.remote.world",
    "Snapshot": "magi_world.world.snapshot",
    "World": "magi_world.world.world",
    "WorldSpec": "magi_world.world.spec",
    "list_worlds": "magi_world.loading",
    "load_world": "magi_world.loading",
}

if not os.path.isdir(os.path.join(__path__[0], "envs")):
    # A clone on a system without symbolic links: the upper rooms are found beside this folder.
    __path__.append(os.path.dirname(__path__[0]))

register(
    id="MagiWorld-v0",
    entry_point="magi_world.envs:MagiWorldEnv",
    vector_entry_point="magi_world.envs:MagiWorldVectorEnv",
)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'magi_world' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
