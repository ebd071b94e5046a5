"""Wrappers that make a world look like what learning code expects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.utils import RecordConstructorArgs

from magi_world.envs.spaces import CommandSpace, command_at
from magi_world.envs.stacking import Batch, Stacking


class DiscreteCommands(gym.ActionWrapper[np.ndarray, int, str], RecordConstructorArgs):
    """Actions 0 .. n - 1 that stand for commands."""

    def __init__(
        self, env: gym.Env[np.ndarray, str], commands: Sequence[str] | None = None
    ) -> None:
        """Args:
            commands: what the actions say; by default the world's own commands, in their order.

        Raises:
            ValueError: the actions of ``env`` are no texts, or a command cannot be said.
        """
        RecordConstructorArgs.__init__(self, commands=commands)
        super().__init__(env)
        self.commands = command_table(env.action_space, commands)
        self.action_space: gym.Space[Any] = Discrete(len(self.commands))

    def action(self, action: int) -> str:
        """The command of a number.

        Raises:
            ValueError: there is none.
        """
        return command_at(self.commands, action, "action")

    def get_keys_to_action(self) -> dict[tuple[int, ...], int]:
        """Key codes to numbers, as `gymnasium.utils.play` wants them."""
        said = self.env.get_wrapper_attr("get_keys_to_action")()
        return {k: self.commands.index(v) for k, v in said.items() if v in self.commands}


class ChunkToImage(gym.Wrapper[np.ndarray, Any, np.ndarray, Any], RecordConstructorArgs):
    """Observations are pictures (H, W, 3 k): the last k frames, stacked on channels."""

    def __init__(self, env: gym.Env[np.ndarray, Any], frames: int = 4, every: int = 1) -> None:
        """Args:
            frames: k; they reach into earlier chunks where one has fewer.
            every: take only every so many-th frame, the newest included.

        Raises:
            ValueError: a number below 1, or observations that are no chunks or frames.
        """
        RecordConstructorArgs.__init__(self, frames=frames, every=every)
        super().__init__(env)
        self.stacking = Stacking(frames, every)
        self.observation_space = self.stacking.space(env.observation_space)
        self._kept: Batch | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """As the environment's."""
        seen, info = self.env.reset(seed=seed, options=options)
        self._kept = self.stacking.begin(seen[None])
        return self._picture(), info

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """As the environment's."""
        seen, reward, terminated, truncated, info = self.env.step(action)
        self._kept = self.stacking.push(cast(Batch, self._kept), seen[None])
        return self._picture(), reward, terminated, truncated, info

    def _picture(self) -> np.ndarray:
        return cast(np.ndarray, self.stacking.picture(cast(Batch, self._kept)))[0]


class PotentialShaping(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Adds gamma * potential(after) - potential(before), which leaves the best policy as it is.

    Source: Ng, Harada and Russell, 1999, theorem 1; the potential of an end is 0.
    """

    def __init__(
        self, env: gym.Env[Any, Any], potential: Callable[[Any], float], gamma: float = 0.99
    ) -> None:
        """Args:
            potential: of an observation.
            gamma: the discount that the agent learns with.

        Raises:
            ValueError: gamma outside 0 .. 1.
        """
        RecordConstructorArgs.__init__(self, potential=potential, gamma=gamma)
        super().__init__(env)
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma is {gamma}; it must be 0 .. 1")
        self.potential, self.gamma = potential, gamma
        self._before = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """As the environment's."""
        seen, info = self.env.reset(seed=seed, options=options)
        self._before = float(self.potential(seen))
        return seen, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As the environment's, with the shaped reward."""
        seen, reward, terminated, truncated, info = self.env.step(action)
        after = 0.0 if terminated else float(self.potential(seen))
        shaped = float(reward) + self.gamma * after - self._before
        self._before = after
        return seen, shaped, terminated, truncated, info


def command_table(space: gym.Space[Any], commands: Sequence[str] | None) -> tuple[str, ...]:
    """The commands that numbers stand for.

    Raises:
        ValueError: as `DiscreteCommands`.
    """
    if not isinstance(space, CommandSpace):
        raise ValueError(f"the actions are {space}; DiscreteCommands is for a world's texts")
    table = space.commands if commands is None else tuple(commands)
    if isinstance(commands, str) or not table:
        raise ValueError(f"commands is {commands!r}; it must be a list of texts")
    return tuple(space.check(command, f"command {i}") for i, command in enumerate(table))
