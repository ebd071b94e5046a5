"""What an environment is asked for: which world, and what of it is given and taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from magi_world.config import require
from magi_world.envs.spaces import check_choice, is_int
from magi_world.loading import LoadOptions, open_world
from magi_world.remote.world import RemoteWorld
from magi_world.threads import settle_threads
from magi_world.world.parts import WorldParts
from magi_world.world.world import Steer, World

Observation = Literal["chunk", "frame", "image", "latent"]
Actions = Literal["text", "discrete"]
RenderMode = Literal["human", "rgb_array", "rgb_array_list"]
Output = Literal["numpy", "torch"]


@dataclass(frozen=True)
class EnvConfig:
    """Checked arguments that do not say which world it is; `MagiWorldEnv` explains them.

    frames: that an observation "image" is stacked of.
    strict: whether texts are read (`magi_world.language`) or taken as they are.
    output: whether a vector environment gives arrays, or tensors on the world's device.
    """

    observation: Observation = "chunk"
    max_chunks: int | None = None
    prompt: str | Sequence[str | None] | None = None
    seed: int | None = None
    steer: Steer = "now"
    render_mode: RenderMode | None = None
    actions: Actions = "text"
    frames: int = 4
    strict: bool = True
    output: Output = "numpy"

    def __post_init__(self) -> None:
        for name, kind in (
            ("observation", Observation), ("actions", Actions), ("steer", Steer), ("output", Output)
        ):  # fmt: skip
            check_choice(name, getattr(self, name), get_args(kind))
        check_choice("render_mode", self.render_mode, (None, *get_args(RenderMode)))
        check_choice("strict", self.strict, (True, False))
        numbers = (("max_chunks", 1, True), ("frames", 1, False), ("seed", 0, True))
        for name, least, or_none in numbers:
            value = getattr(self, name)
            require(
                (or_none and value is None) or (is_int(value) and value >= least),
                f"{name} is {value!r}; it must be a whole number from {least}"
                + ", or None" * or_none,
            )


class WorldFactory:
    """Makes worlds that share one set of weights: loaded by name, or lent by a world.

    A copy shares them as well. Pickled, one that loads by name carries the name only.
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
        self.options = LoadOptions.of(load)
        self.name: str | None = None if isinstance(world, World) else str(world)
        self._parts: WorldParts | None = None
        # Whose like are made; a world that is loaded by name leaves only its weights.
        self._world: World | None = None
        if isinstance(world, World):
            for field in fields(self.options):
                value = getattr(self.options, field.name)
                if value != field.default:
                    raise ValueError(
                        f"load has {field.name} {value!r}, but world is a World that is loaded "
                        "already; give a name, or leave it out"
                    )
            self._world = world
            settle_threads("auto", world.device)

    def make(self, num_worlds: int) -> World:
        if self._world is not None:
            return self._world.another(num_worlds)
        if self._parts is not None:
            options = self.options
            return World(self._parts, num_worlds, options.attention, options.noise_scale)
        world = open_world(self.name or "", num_worlds, self.options)
        if isinstance(world, RemoteWorld):
            self._world = world
        else:
            self._parts = world.parts
        return world

    def __deepcopy__(self, memo: dict[int, Any]) -> WorldFactory:
        return self

    def __getstate__(self) -> dict[str, Any]:
        lent = self._world if self.name is None else None
        return {**self.__dict__, "_parts": None, "_world": lent}
