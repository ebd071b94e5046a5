"""Who gives the commands: the agents that need no training, and what every agent is."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class Agent(Protocol):
    """One method, for a person, a script, a policy, a planner or a language model alike."""

    def act(self, observation: np.ndarray, info: Mapping[str, Any]) -> str:
        """The command under which the next chunk is made.

        Args:
            observation: what the environment shows: uint8 frames (T, H, W, 3) of the last chunk,
                or what its wrappers make of them.
            info: what the environment says about that chunk: ``chunk`` is its index (0 is the
                start), ``prompt`` the command in force. The window adds ``seed`` and
                ``commands``, the world's own commands.

        Raises:
            ValueError: the agent cannot answer for this observation.
        """


class CallableAgent:
    """Any function of (observation, info) as an agent: a language model, a rule, a service."""

    def __init__(self, function: Callable[[np.ndarray, dict[str, Any]], str]) -> None:
        """``function`` is called once a chunk and returns a command; the dict is its own."""
        self.function = function

    def act(self, observation: np.ndarray, info: Mapping[str, Any]) -> str:
        return checked_command(self.function(observation, dict(info)), "the agent's function")


class HumanAgent:
    """Answers with what was said last; until then, with the command that is in force.

    `say` may be called from another thread than `act`.
    """

    def __init__(self) -> None:
        self._said: str | None = None

    @property
    def said(self) -> str | None:
        """None before anything was said."""
        return self._said

    def say(self, command: str | None) -> None:
        """From now on, answer this; None goes back to the command in force.

        Raises:
            ValueError: not a command.
        """
        self._said = None if command is None else checked_command(command, "the person")

    def act(self, observation: np.ndarray, info: Mapping[str, Any]) -> str:
        if self._said is not None:
            return self._said
        return checked_command(info_field(info, "prompt"), "info['prompt']")


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

    def act(self, observation: np.ndarray, info: Mapping[str, Any]) -> str:
        line = bisect_right(self._chunks, int(info_field(info, "chunk")) + 1)
        if line:
            return self._lines[self._chunks[line - 1]]
        return str(info_field(info, "prompt") or self._lines[self._chunks[0]])


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
        """``commands`` to pick from; None takes those in ``info["commands"]``."""
        self.commands = None if commands is None else _some(commands, "commands")
        self.config = config or RandomConfig()

    def act(self, observation: np.ndarray, info: Mapping[str, Any]) -> str:
        commands = self.commands or _some(info_field(info, "commands"), "info['commands']")
        turn = int(info_field(info, "chunk")) // self.config.hold
        digest = hashlib.blake2b(f"{self.config.seed}:{turn}".encode(), digest_size=8).digest()
        return commands[int.from_bytes(digest, "little") % len(commands)]


def checked_command(command: object, source: str) -> str:
    """``command`` if it is one.

    Raises:
        ValueError: it is no str, or says nothing.
    """
    if not isinstance(command, str) or not command.strip():
        raise ValueError(f"{source} gave {command!r:.80}; it must be a str such as 'turn left'")
    return command


def info_field(info: Mapping[str, Any], name: str) -> Any:
    """A field of ``info``.

    Raises:
        ValueError: it is not there.
    """
    if name not in info:
        raise ValueError(f"info has no {name!r}; it holds {', '.join(map(str, info)) or 'nothing'}")
    return info[name]


def _some(commands: Sequence[str], name: str) -> tuple[str, ...]:
    if not len(commands):
        raise ValueError(f"{name} is empty; a random agent needs commands to pick from")
    return tuple(str(command) for command in commands)
