"""The arguments of an environment that do not say which world it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from gymnasium.vector import AutoresetMode

from magi_world.config import require
from magi_world.model.text import check_prompt
from magi_world.world.world import Steer

MOST_WORLDS = 65_536  # in a batch; far beyond any machine
Observation = Literal["chunk", "frame", "image", "latent"]
Actions = Literal["text", "discrete"]
RenderMode = Literal["human", "rgb_array", "rgb_array_list"]
Output = Literal["numpy", "torch"]


@dataclass(frozen=True)
class EnvConfig:
    """Checked arguments; `MagiWorldEnv` explains them.

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
        check_choice("observation", self.observation, get_args(Observation))
        check_choice("actions", self.actions, get_args(Actions))
        check_choice("steer", self.steer, get_args(Steer))
        check_choice("render_mode", self.render_mode, (None, *get_args(RenderMode)))
        check_choice("strict", self.strict, (True, False))
        check_choice("output", self.output, get_args(Output))
        require(
            self.max_chunks is None or (is_int(self.max_chunks) and self.max_chunks >= 1),
            f"max_chunks is {self.max_chunks!r}; it must be a whole number from 1, or None",
        )
        require(
            is_int(self.frames) and self.frames >= 1,
            f"frames is {self.frames!r}; it must be a whole number from 1",
        )
        require(
            self.seed is None or (is_int(self.seed) and self.seed >= 0),
            f"seed is {self.seed!r}; it must be a whole number from 0, or None",
        )


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if not any(value is choice or value == choice for choice in choices):
        shown = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} is {value!r}; it must be one of {shown}")


def is_int(value: object) -> bool:
    """Whether it is a whole number, and no bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def whole_seed(seed: object) -> int | None:
    """A seed as Gymnasium takes it, from any kind of whole number.

    Raises:
        ValueError: it is negative, or no whole number.
    """
    if seed is None:
        return None
    if not is_int(seed) or seed < 0:  # type: ignore[operator]
        raise ValueError(f"seed is {seed!r}; it must be a whole number from 0, or None")
    return int(seed)  # type: ignore[call-overload]


def scenes_per_world(prompt: Any, count: int) -> list[str | None]:
    """The prompt of each world; None is the world's own.

    Raises:
        ValueError: the wrong number of prompts, or one that cannot be read.
    """
    several = isinstance(prompt, list | tuple | np.ndarray)
    prompts = list(prompt) if several else [prompt] * count
    if len(prompts) != count:
        raise ValueError(f"prompt has {len(prompts)} entries, but there are {count} worlds")
    return [None if p is None else check_prompt(p) for p in prompts]


def autoreset_mode(value: str | AutoresetMode) -> AutoresetMode:
    """An `AutoresetMode` from itself, its value or its name, e.g. "SAME_STEP".

    Raises:
        ValueError: there is no such mode.
    """
    for mode in AutoresetMode:
        if value is mode or (isinstance(value, str) and value in (mode.value, mode.name)):
            return mode
    names = ", ".join(repr(mode.name) for mode in AutoresetMode)
    raise ValueError(f"autoreset_mode is {value!r}; it must be one of {names}")


def check_count(n: object) -> None:
    """Raise ValueError unless ``n`` worlds can be forked."""
    if not is_int(n) or not 1 <= n <= MOST_WORLDS:  # type: ignore[operator]
        raise ValueError(f"n is {n!r}; it must be a whole number from 1 to {MOST_WORLDS:,}")
