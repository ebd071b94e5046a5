"""An agent that picks among the world's commands by chance."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from magi_world.agents.protocol import info_field


@dataclass(frozen=True)
class RandomConfig:
    """seed: of the agent's choices.    hold: for how many chunks each choice stands."""

    seed: int = 0
    hold: int = 1

    def __post_init__(self) -> None:
        if self.hold < 1:
            raise ValueError(f"RandomConfig.hold is {self.hold}; it must be at least 1")


class RandomAgent:
    """Every command equally likely.

    A choice depends on the agent's seed and the chunk, and on nothing else, so that a rewound or
    replayed session meets the same choices again.
    """

    def __init__(
        self, commands: Sequence[str] | None = None, config: RandomConfig | None = None
    ) -> None:
        """``commands`` to pick from; None takes those in ``info["commands"]``.

        Raises:
            ValueError: ``commands`` is empty.
        """
        self.commands = None if commands is None else _some(commands, "commands")
        self.config = config or RandomConfig()

    def act(self, observation: np.ndarray, info: Mapping[str, Any]) -> str:
        """One of the commands; see `magi_world.agents.protocol.Agent`.

        Raises:
            ValueError: ``info`` lacks a field, or there are no commands.
        """
        commands = self.commands or _some(info_field(info, "commands"), "info['commands']")
        turn = int(info_field(info, "chunk")) // self.config.hold
        digest = hashlib.blake2b(f"{self.config.seed}:{turn}".encode(), digest_size=8).digest()
        return commands[int.from_bytes(digest, "little") % len(commands)]


def _some(commands: Sequence[str], name: str) -> tuple[str, ...]:
    if not len(commands):
        raise ValueError(f"{name} is empty; a random agent needs commands to pick from")
    return tuple(str(command) for command in commands)
