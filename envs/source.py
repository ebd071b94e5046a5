"""Where an environment's worlds come from: loaded by name, or made from a world that exists."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from magi_world.loading import Dtype, load_world
from magi_world.model.attention import Backend
from magi_world.parts import WorldParts
from magi_world.world import World


@dataclass(frozen=True)
class LoadOptions:
    """How a world is loaded; each as `magi_world.load_world` has it."""

    device: str | torch.device | None = None
    dtype: Dtype | None = None
    num_steps: int | None = None
    window_size: int | None = None
    frame_size: tuple[int, int] | None = None
    weights: str | Path | None = None
    captions: str | Path | None = None
    text_device: str | torch.device | None = None
    attention: Backend = "sdpa"
    noise_scale: float = 1.0


class Source:
    """Makes worlds that share one set of weights.

    A copy shares them as well. Pickled, a source that loads by name carries the name only.
    """

    def __init__(self, world: str | Path | World, options: LoadOptions) -> None:
        """Args:
            world: what `load_world` takes, or a `World`, which lends its weights and is itself
                never stepped.

        Raises:
            ValueError: neither of them, or options for loading together with a `World`.
        """
        if not isinstance(world, str | Path | World):
            raise ValueError(
                f"world is {world!r:.80}, a {type(world).__name__}; it must be a name, the folder "
                "of a world package, or a World"
            )
        self.options = options
        self.name: str | None = None if isinstance(world, World) else str(world)
        self._parts: WorldParts | None = None
        if isinstance(world, World):
            given = [f.name for f in fields(options) if getattr(options, f.name) != f.default]
            if given:
                raise ValueError(
                    f"{given[0]} is {getattr(options, given[0])!r}, but world is a World that is "
                    "loaded already; give a name, or leave it out"
                )
            config = world.config
            self.options = LoadOptions(attention=config.attention, noise_scale=config.noise_scale)
            self._parts = world.parts

    def make(self, num_worlds: int) -> World:
        """A world of its own, not yet reset."""
        if self._parts is None:
            world = load_world(self.name or "", num_worlds, **asdict(self.options))
            self._parts = world.parts
            return world
        options = self.options
        return World(self._parts, num_worlds, options.attention, options.noise_scale)

    def __deepcopy__(self, memo: dict[int, Any]) -> Source:
        return self

    def __getstate__(self) -> dict[str, Any]:
        parts = self._parts if self.name is None else None
        return {**self.__dict__, "_parts": parts}
