"""A person: whoever holds the keyboard tells this agent what to answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from magi_world.agents.protocol import checked_command, info_field


class HumanAgent:
    """Answers with what was said last; until then, with the command that is in force.

    `say` may be called from another thread than `act`.
    """

    def __init__(self) -> None:
        """Nothing has been said yet."""
        self._said: str | None = None

    @property
    def said(self) -> str | None:
        """What was said last; None before that."""
        return self._said

    def say(self, command: str | None) -> None:
        """From now on, answer this; None goes back to the command in force.

        Raises:
            ValueError: not a command.
        """
        self._said = None if command is None else checked_command(command, "the person")

    def act(self, observation: np.ndarray, info: Mapping[str, Any]) -> str:
        """What was said last; see `magi_world.agents.protocol.Agent`.

        Raises:
            ValueError: nothing was said, and ``info`` has no ``prompt`` or an empty one.
        """
        if self._said is not None:
            return self._said
        return checked_command(info_field(info, "prompt"), "info['prompt']")
