"""Wrappers that make worlds look like what learning code expects, for one and for many.

Shapes: B worlds, T video frames, H, W pixels, k frames in a picture, n frames kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorActionWrapper, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from torch import Tensor

from magi_world.envs.reset import reset_mask
from magi_world.envs.spaces import command_at, command_table, commands_per_world, is_int

Batch = np.ndarray | Tensor
MOST = 1000  # a picture of more frames, or from further apart, is a mistake


@dataclass(frozen=True)
class Stacking:
    """frames: k.    every: take only every so many-th frame, the newest included."""

    frames: int = 4
    every: int = 1

    def __post_init__(self) -> None:
        for name in ("frames", "every"):
            value = getattr(self, name)
            if not is_int(value) or not 1 <= value <= MOST:
                raise ValueError(f"{name} is {value!r}; it must be a whole number from 1 to {MOST}")

    @property
    def kept(self) -> int:
        """n, how far back the picture reaches."""
        return (self.frames - 1) * self.every + 1

    def space(self, space: Space[Any]) -> Box:
        """Space of the pictures, from that of chunks (T, H, W, 3) or frames (H, W, 3).

        Raises:
            ValueError: observations are something else.
        """
        shape = space.shape or ()
        if not isinstance(space, Box) or space.dtype != np.uint8 or len(shape) not in (3, 4):
            raise ValueError(
                f"the observations are {space}; pictures are made of observation='chunk' or 'frame'"
            )
        height, width, channels = shape[-3:]
        return Box(0, 255, (height, width, channels * self.frames), np.uint8)

    def begin(self, seen: Batch) -> Batch:
        """The frames to keep (B, n, H, W, 3) after a reset; the first stands for earlier ones."""
        xp: Any = torch if isinstance(seen, Tensor) else np
        clip = _as_clip(seen)
        missing = max(0, self.kept - clip.shape[1])
        return xp.concatenate([clip[:, :1]] * missing + [clip], 1)[:, -self.kept :]

    def push(self, kept: Batch, seen: Batch) -> Batch:
        xp: Any = torch if isinstance(seen, Tensor) else np
        return xp.concatenate([kept, _as_clip(seen)], 1)[:, -self.kept :]

    def picture(self, kept: Batch) -> Batch:
        """(B, n, H, W, 3) -> (B, H, W, 3 k), oldest first, as a new array."""
        xp: Any = torch if isinstance(kept, Tensor) else np
        chosen = kept[:, :: self.every]
        batch, _, height, width, _ = chosen.shape
        moved = xp.moveaxis(chosen, 1, 3).reshape(batch, height, width, -1)
        return moved.clone() if isinstance(moved, Tensor) else np.array(moved)


def _as_clip(seen: Any) -> Any:
    """(B, T, H, W, 3) of observations (B, T, H, W, 3) or (B, H, W, 3)."""
    return seen if seen.ndim == 5 else seen[:, None]


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
        return command_at(self.commands, action)

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
        seen, info = self.env.reset(seed=seed, options=options)
        self._kept = self.stacking.begin(seen[None])
        return self._picture(), info

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        seen, reward, terminated, truncated, info = self.env.step(action)
        self._kept = self.stacking.push(cast(Batch, self._kept), seen[None])
        return self._picture(), reward, terminated, truncated, info

    def _picture(self) -> np.ndarray:
        return cast(np.ndarray, self.stacking.picture(cast(Batch, self._kept)))[0]


# Gymnasium 1.2 knows no type parameters of these two.
class _KnowsAutoreset(VectorWrapper):
    @property
    def autoreset_mode(self) -> AutoresetMode:
        """TorchRL asks for it."""
        return self.env.metadata["autoreset_mode"]

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        return self.env.call(name, *args, **kwargs)  # type: ignore[attr-defined]

    def get_attr(self, name: str) -> tuple[Any, ...]:
        return self.env.get_attr(name)  # type: ignore[attr-defined]

    def set_attr(self, name: str, values: Any) -> None:
        self.env.set_attr(name, values)  # type: ignore[attr-defined]


class VectorDiscreteCommands(_KnowsAutoreset, VectorActionWrapper):
    """Actions (B,) of whole numbers 0 .. n - 1 that stand for commands."""

    def __init__(
        self,
        env: VectorEnv[Any, Sequence[str], np.ndarray],
        commands: Sequence[str] | None = None,
    ) -> None:
        super().__init__(env)
        self.commands = command_table(env.single_action_space, commands)
        self.single_action_space = Discrete(len(self.commands))
        self.action_space: MultiDiscrete = cast(
            MultiDiscrete, batch_space(self.single_action_space, env.num_envs)
        )

    def actions(self, actions: Any) -> tuple[str, ...]:
        return tuple(map(str, commands_per_world(None, self.commands, actions, self.num_envs)))


class VectorChunkToImage(_KnowsAutoreset):
    """Observations are pictures (B, H, W, 3 k), those in ``info["final_obs"]`` too.

    kept: the frames (B, n, H, W, 3) that the next picture is made of; whoever restores the worlds
    inside puts these back as well.
    """

    def __init__(
        self, env: VectorEnv[Batch, Any, np.ndarray], frames: int = 4, every: int = 1
    ) -> None:
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
        seen, infos = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        rows = reset_mask((options or {}).get("reset_mask"), self.num_envs)
        self._begin(rows, seen)
        self._ended[rows] = False
        return self.stacking.picture(self.kept), infos

    def step(
        self, actions: Any
    ) -> tuple[Batch, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
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
