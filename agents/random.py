"""An agent that picks among the world's commands by chance."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
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

    A choice depends on the agent's seed, the world's seed and the chunk, and on nothing else, so
    that a rewound or replayed session meets the same choices again.
    """

    def __init__(self, config: RandomConfig | None = None) -> None:
        """With the default seed and a new choice every chunk, unless told otherwise."""
        self.config = config or RandomConfig()

    def act(self, observation: np.ndarray, info: Mapping[str, Any]) -> str:
        """One of ``info["commands"]``; see `magi_world.agents.protocol.Agent`.

        Raises:
            ValueError: ``info`` lacks a field, or the world has no commands.
        """
        commands = list(info_field(info, "commands"))
        if not commands:
            raise ValueError(
                "info['commands'] is empty; a random agent needs commands to pick from"
            )
        turn = int(info_field(info, "chunk")) // self.config.hold
        words = f"{self.config.seed}:{info_field(info, 'seed')}:{turn}".encode()
        digest = hashlib.blake2b(words, digest_size=8).digest()
        return str(commands[int.from_bytes(digest, "little") % len(commands)])
