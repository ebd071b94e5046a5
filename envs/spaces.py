"""The action space: anything that can be said to the world, and what it was taught to obey."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from gymnasium.spaces import Text
from torch import Tensor

from magi_world.world.spec import MAX_CHARACTERS, PRINTABLE, WorldSpec


class CommandSpace(Text):
    """Printable ASCII text of 1 .. 1024 characters that is not blank.

    `sample` draws from the world's own commands, because random letters steer nothing. Any other
    text is an action too: the world reads it as a prompt.
    """

    def __init__(
        self, commands: Sequence[str], seed: int | np.random.Generator | None = None
    ) -> None:
        super().__init__(MAX_CHARACTERS, min_length=1, charset=PRINTABLE, seed=seed)
        self.commands = tuple(commands)
        if not self.commands:
            raise ValueError("commands is empty; sample() needs at least one to draw from")
        for command in self.commands:
            self.check(command)

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> str:
        """One of the n commands: ``mask`` (n,) of 0 and 1 says which may be drawn, or
        ``probability`` (n,), which sums to 1, how likely each is.

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
        return super().contains(x) and bool(x.strip())

    def check(self, action: object, place: str = "action") -> str:
        """The action as the world takes it: unchanged.

        Raises:
            ValueError: it is not in the space; the message says why.
        """
        if not isinstance(action, str):
            number = is_int(action) or (
                isinstance(action, np.ndarray) and np.issubdtype(action.dtype, np.integer)
            )
            hint = "; actions='discrete' takes numbers" if number else ""
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


def commands_of(spec: WorldSpec) -> tuple[str, ...]:
    """What a world's `sample` draws from: its commands, or, where it lists none, to go on."""
    return spec.command_names or ("the scene continues",)


def command_table(space: Any, commands: Sequence[str] | None) -> tuple[str, ...]:
    """The commands that numbers stand for; None takes those of the space.

    Raises:
        ValueError: no space of texts, or a command that cannot be said.
    """
    if not isinstance(space, CommandSpace):
        raise ValueError(f"the actions are {space}; DiscreteCommands is for a world's texts")
    table = space.commands if commands is None else tuple(commands)
    if isinstance(commands, str) or not table:
        raise ValueError(f"commands is {commands!r}; it must be a list of texts")
    return tuple(space.check(command, f"command {i}") for i, command in enumerate(table))


def command_at(commands: Sequence[str], action: object, place: str = "action") -> str:
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


def commands_per_world(
    space: Any, table: Sequence[str], actions: Any, count: int, skipped: Sequence[int] = ()
) -> list[str | None]:
    """One command per world; None for those whose action does not matter.

    Args:
        space: a `CommandSpace` if actions are texts; else they are numbers in ``table``.

    Raises:
        TypeError: no list of actions.
        ValueError: not ``count`` actions, or one that is not in the space.
    """
    texts = isinstance(space, CommandSpace)
    if isinstance(actions, np.ndarray | Tensor) and actions.ndim:
        actions = list(actions) if actions.dtype == object else actions.tolist()
    if not isinstance(actions, list | tuple):
        what = "texts" if texts else "numbers"
        raise TypeError(f"actions is {actions!r:.80}; it must be a list of {count} {what}")
    if len(actions) != count:
        raise ValueError(f"actions has {len(actions)} entries; it must have {count}")

    def command(row: int, action: Any) -> str:
        place = f"action {row}"
        return space.check(action, place) if texts else command_at(table, action, place)

    return [None if row in skipped else command(row, action) for row, action in enumerate(actions)]


def keys_to_action(spec: WorldSpec) -> dict[tuple[int, ...], str]:
    """Key codes of `pygame`, sorted, to the command that they give.

    Raises:
        ValueError: a command names a key that pygame does not know.
    """
    return {
        tuple(sorted(_key_code(name) for name in combination.split("+"))): command.name
        for command in spec.commands
        for combination in command.keys
    }


def _key_code(name: str) -> int:
    # Only numbers are taken from pygame: pygame.key.key_code would need an open window.
    import pygame.constants

    for spelled in (name, name.upper()):
        code = getattr(pygame.constants, f"K_{spelled}", None)
        if isinstance(code, int):
            return code
    raise ValueError(f"key {name!r} is not known; it must be one of pygame's, e.g. 'left' or 'a'")


def is_int(value: object) -> bool:
    """Whether it is a whole number, and no bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if not any(value is choice or value == choice for choice in choices):
        shown = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} is {value!r}; it must be one of {shown}")


def teach_torchrl() -> None:
    """Let TorchRL draw the world's commands, if it is loaded; it would draw the words 'a string'.
    Only our own space is concerned."""
    if "torchrl.envs.libs.gym" in sys.modules:
        _teach_torchrl()


@cache
def _teach_torchrl() -> None:
    from tensordict import NonTensorData
    from torchrl.data import Choice
    from torchrl.envs.libs.gym import register_gym_spec_conversion

    class CommandSpec(Choice):
        """`rand` draws one of the commands; any other text is an action too."""

        def to_numpy(self, val: Any, safe: bool | None = None) -> Any:
            return val.data if isinstance(val, NonTensorData) else val

        def is_in(self, val: Any) -> bool:
            return isinstance(self.to_numpy(val), str)

    @register_gym_spec_conversion(CommandSpace)
    def _convert(spec: CommandSpace, device: Any = None, **_: Any) -> CommandSpec:
        return CommandSpec([NonTensorData(command, device=device) for command in spec.commands])
