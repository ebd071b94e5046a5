"""An agent that says what a script says."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import numpy as np

from magi_world.agents.protocol import checked_command, info_field


class ScriptedAgent:
    """Follows a table "from chunk n on, say this"; past its end the last line stays in force."""

    def __init__(self, lines: Mapping[int, str]) -> None:
        """``lines``: index of the first chunk that a command shapes (from 1) -> command.

        Raises:
            ValueError: no lines, an index below 1, or a command that is none.
        """
        if not lines:
            raise ValueError("lines is empty; a script needs at least one command")
        for chunk, command in lines.items():
            if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
                raise ValueError(
                    f"lines has chunk {chunk!r}; it must be a whole number from 1 "
                    "(chunk 0 is the start and obeys no command)"
                )
            checked_command(command, f"the script at chunk {chunk}")
        self._chunks = sorted(lines)
        self._lines = dict(lines)

    @property
    def last_chunk(self) -> int:
        """Index of the chunk at which the last line begins."""
        return self._chunks[-1]

    def act(self, observation: np.ndarray, info: Mapping[str, Any]) -> str:
        """The line for the next chunk; before the first line, the command in force.

        Raises:
            ValueError: ``info`` lacks a field, or nothing is in force before the first line.
        """
        line = bisect_right(self._chunks, int(info_field(info, "chunk")) + 1)
        if line:
            return self._lines[self._chunks[line - 1]]
        return str(info_field(info, "prompt") or self._lines[self._chunks[0]])
