"""`DiscreteCommands` and `ChunkToImage` for vector environments.

Shapes: B worlds, H, W pixels, k frames in a picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from gymnasium.spaces import Discrete, MultiDiscrete
from gymnasium.vector import AutoresetMode, VectorActionWrapper, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from magi_world.envs.options import reset_mask
from magi_world.envs.spaces import numbers_per_world
from magi_world.envs.stacking import Batch, Stacking
from magi_world.envs.wrappers import command_table


# Gymnasium 1.2 knows no type parameters of these two.
class _KnowsAutoreset(VectorWrapper):
    @property
    def autoreset_mode(self) -> AutoresetMode:
        """That of the environment; TorchRL asks for it."""
        return self.env.metadata["autoreset_mode"]

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """As the environment's."""
        return self.env.call(name, *args, **kwargs)  # type: ignore[attr-defined]

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """As the environment's."""
        return self.env.get_attr(name)  # type: ignore[attr-defined]

    def set_attr(self, name: str, values: Any) -> None:
        """As the environment's."""
        self.env.set_attr(name, values)  # type: ignore[attr-defined]


class VectorDiscreteCommands(_KnowsAutoreset, VectorActionWrapper):
    """Actions (B,) of whole numbers 0 .. n - 1 that stand for commands."""

    def __init__(
        self,
        env: VectorEnv[Any, Sequence[str], np.ndarray],
        commands: Sequence[str] | None = None,
    ) -> None:
        """As `DiscreteCommands`."""
        super().__init__(env)
        self.commands = command_table(env.single_action_space, commands)
        self.single_action_space = Discrete(len(self.commands))
        self.action_space: MultiDiscrete = cast(
            MultiDiscrete, batch_space(self.single_action_space, env.num_envs)
        )

    def actions(self, actions: Any) -> tuple[str, ...]:
        """The commands of numbers.

        Raises:
            TypeError: no list of actions.
            ValueError: not B numbers, or one without a command.
        """
        return tuple(map(str, numbers_per_world(self.commands, actions, self.num_envs)))


class VectorChunkToImage(_KnowsAutoreset):
    """Observations are pictures (B, H, W, 3 k), those in ``info["final_obs"]`` too.

    kept: the frames (B, n, H, W, 3) that the next picture is made of; whoever restores the worlds
    inside puts these back as well.
    """

    def __init__(
        self, env: VectorEnv[Batch, Any, np.ndarray], frames: int = 4, every: int = 1
    ) -> None:
        """As `ChunkToImage`."""
        super().__init__(env)
        self.stacking = Stacking(frames, every)
        self.single_observation_space = self.stacking.space(env.single_observation_space)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self.kept: Any = None
        self._ended = np.zeros(env.num_envs, bool)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Batch, dict[str, Any]]:
        """As the environment's."""
        seen, infos = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        rows = reset_mask((options or {}).get("reset_mask"), self.num_envs)
        self._begin(rows, seen)
        self._ended[rows] = False
        return self.stacking.picture(self.kept), infos

    def step(
        self, actions: Any
    ) -> tuple[Batch, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """As the environment's."""
        seen, reward, terminated, truncated, infos = self.env.step(actions)
        before, ended = self.kept, terminated | truncated
        self.kept = self.stacking.push(before, seen)
        mode = self.autoreset_mode
        if mode is AutoresetMode.SAME_STEP and ended.any():
            final = infos["final_obs"].copy()
            for row in np.flatnonzero(ended):
                kept = self.stacking.push(before[row : row + 1], final[row][None])
                final[row] = self.stacking.picture(kept)[0]
            infos = {**infos, "final_obs": final}
            self._begin(np.flatnonzero(ended).tolist(), seen)
        elif mode is AutoresetMode.NEXT_STEP and self._ended.any():
            self._begin(np.flatnonzero(self._ended).tolist(), seen)
        self._ended = ended
        return self.stacking.picture(self.kept), reward, terminated, truncated, infos

    def _begin(self, rows: list[int], seen: Any) -> None:
        begun = self.stacking.begin(seen[rows])
        if len(rows) == self.num_envs:
            self.kept = begun
        else:
            self.kept[rows] = begun
