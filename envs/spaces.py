"""The action space: anything that can be said to the world, and what it was taught to obey."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
from gymnasium.spaces import Text
from torch import Tensor

from magi_world.envs.config import is_int
from magi_world.world.spec import MAX_CHARACTERS, PRINTABLE, WorldSpec


def teach_torchrl() -> None:
    """Let TorchRL draw the world's commands, if it is there; only our own space is concerned."""
    if "torchrl.envs.libs.gym" in sys.modules:
        import_module("magi_world.envs.torchrl_text")


class CommandSpace(Text):
    """Printable ASCII text of 1 .. 1024 characters that is not blank.

    `sample` draws from the world's own commands, because random letters steer nothing. Any other
    text is an action too: the world reads it as a prompt.
    """

    def __init__(
        self, commands: Sequence[str], seed: int | np.random.Generator | None = None
    ) -> None:
        """``commands`` are what `sample` draws from.

        Raises:
            ValueError: no command, or one that is not in the space.
        """
        super().__init__(MAX_CHARACTERS, min_length=1, charset=PRINTABLE, seed=seed)
        self.commands = tuple(commands)
        if not self.commands:
            raise ValueError("commands is empty; sample() needs at least one to draw from")
        for command in self.commands:
            self.check(command)

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> str:
        """One of the commands.

        Args:
            mask: (n,) of 0 and 1, which of the n commands may be drawn.
            probability: (n,) that sums to 1, how likely each is.

        Raises:
            ValueError: both are given, or one of the wrong shape, or nothing may be drawn.
        """
        if mask is not None and probability is not None:
            raise ValueError("mask and probability were given; sample() takes one of them")
        weights = mask if probability is None else probability
        if weights is None:
            return self.commands[int(self.np_random.integers(len(self.commands)))]
        weights = np.asarray(weights, np.float64)
        if weights.shape != (len(self.commands),) or (weights < 0).any() or not weights.any():
            raise ValueError(
                f"mask or probability is {weights}; it must be {len(self.commands)} numbers from 0 "
                "on, not all 0"
            )
        choice = self.np_random.choice(len(self.commands), p=weights / weights.sum())
        return self.commands[int(choice)]

    def contains(self, x: Any) -> bool:
        """Whether ``x`` can be said."""
        return super().contains(x) and bool(x.strip())

    def check(self, action: object, place: str = "action") -> str:
        """The action as the world takes it: unchanged.

        Raises:
            ValueError: it is not in the space; the message says why.
        """
        if not isinstance(action, str):
            hint = "; actions='discrete' takes numbers" if _is_number(action) else ""
            raise ValueError(
                f"{place} is {action!r:.80}, a {type(action).__name__}; it must be a str such as "
                f"{self.commands[0]!r}{hint}"
            )
        if not action.strip():
            raise ValueError(f"{place} is {action!r:.80}; it must say something")
        if len(action) > self.max_length:
            raise ValueError(
                f"{place} has {len(action):,} characters ({action!r:.40}...); it must have at most "
                f"{self.max_length:,}"
            )
        strange = sorted(set(action) - self.character_set)
        if strange:
            raise ValueError(
                f"{place} is {action!r:.80}, with {''.join(strange)!r:.40}; it must be printable "
                "ASCII"
            )
        return str(action)

    def __repr__(self) -> str:
        shown = ", ".join(repr(c) for c in self.commands[:4])
        more = ", ..." if len(self.commands) > 4 else ""
        return f"CommandSpace({shown}{more})"


def _is_number(action: object) -> bool:
    return isinstance(action, int | np.integer) or (
        isinstance(action, np.ndarray) and np.issubdtype(action.dtype, np.integer)
    )


def commands_of(spec: WorldSpec) -> tuple[str, ...]:
    """What a world's `sample` draws from: its commands, or, where it lists none, to go on."""
    return spec.command_names or ("the scene continues",)


def commands_per_world(
    space: CommandSpace, actions: Any, count: int, skipped: Sequence[int] = ()
) -> list[str | None]:
    """One command per world; None for those whose action does not matter.

    Raises:
        TypeError: no list of actions.
        ValueError: not ``count`` actions, or one that is not in the space.
    """
    return [
        None if row in skipped else space.check(action, f"action {row}")
        for row, action in enumerate(_one_per_world(actions, count, "texts"))
    ]


def numbers_per_world(
    commands: Sequence[str], actions: Any, count: int, skipped: Sequence[int] = ()
) -> list[str | None]:
    """As `commands_per_world`, where an action is the number of a command.

    Raises:
        As `commands_per_world`.
    """
    return [
        None if row in skipped else command_at(commands, action, f"action {row}")
        for row, action in enumerate(_one_per_world(actions, count, "numbers"))
    ]


def command_at(commands: Sequence[str], action: object, place: str) -> str:
    """``commands[action]``, of any whole number: Python's, numpy's or torch's.

    Raises:
        ValueError: ``action`` is no whole number from 0 to the last of them.
    """
    alone = (
        isinstance(action, np.ndarray | Tensor) and action.ndim < 2 and math.prod(action.shape) == 1
    )
    number: Any = action.item() if alone else action  # type: ignore[attr-defined]
    if not is_int(number) or not 0 <= number < len(commands):
        raise ValueError(f"{place} is {action!r:.80}; it must be 0 .. {len(commands) - 1}")
    return commands[int(number)]


def _one_per_world(actions: Any, count: int, what: str) -> list[Any]:
    if isinstance(actions, np.ndarray | Tensor) and actions.ndim:
        actions = list(actions) if actions.dtype == object else actions.tolist()
    if not isinstance(actions, list | tuple):
        raise TypeError(f"actions is {actions!r:.80}; it must be a list of {count} {what}")
    if len(actions) != count:
        raise ValueError(f"actions has {len(actions)} entries; it must have {count}")
    return list(actions)
