"""What every agent is: something that looks at the last chunk and says what to do next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
        """What the function says.

        Raises:
            ValueError: it returned something that is not a str.
        """
        return checked_command(self.function(observation, dict(info)), "the agent's function")


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
