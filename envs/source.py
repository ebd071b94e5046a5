"""Where an environment's worlds come from: loaded by name, or made from a world that exists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from magi_world.loading import LoadOptions, open_world
from magi_world.remote.world import RemoteWorld
from magi_world.threads import settle_threads
from magi_world.world.parts import WorldParts
from magi_world.world.world import World


class Source:
    """Makes worlds that share one set of weights.

    A copy shares them as well. Pickled, a source that loads by name carries the name only.
    """

    def __init__(
        self, world: str | Path | World, load: LoadOptions | Mapping[str, Any] | None
    ) -> None:
        """Args:
            world: what `load_world` takes, or a `World`, which lends its weights and is itself
                never stepped.
            load: for a world that is loaded by name.

        Raises:
            ValueError: neither of them, or options for loading together with a `World`.
        """
        if not isinstance(world, str | Path | World):
            raise ValueError(
                f"world is {world!r:.80}, a {type(world).__name__}; it must be a name, the folder "
                "of a world package, or a World"
            )
        self.options = options = LoadOptions.of(load)
        self.name: str | None = None if isinstance(world, World) else str(world)
        self._parts: WorldParts | None = None
        self._world: World | None = None
        if isinstance(world, World):
            for field in fields(options):
                value = getattr(options, field.name)
                if value != field.default:
                    raise ValueError(
                        f"load has {field.name} {value!r}, but world is a World that is loaded "
                        "already; give a name, or leave it out"
                    )
            config = world.config
            self.options = LoadOptions(attention=config.attention, noise_scale=config.noise_scale)
            self._parts = world.parts
            self._world = world
            settle_threads("auto", world.device)

    def make(self, num_worlds: int) -> World:
        """A world of its own, not yet reset."""
        if self._world is not None and isinstance(self._world, RemoteWorld):
            return self._world.another(num_worlds)
        if self._parts is None:
            world = open_world(self.name or "", num_worlds, self.options)
            self._parts = world.parts
            return world
        options = self.options
        return World(self._parts, num_worlds, options.attention, options.noise_scale)

    def __deepcopy__(self, memo: dict[int, Any]) -> Source:
        return self

    def __getstate__(self) -> dict[str, Any]:
        parts = self._parts if self.name is None else None
        return {**self.__dict__, "_parts": parts}
