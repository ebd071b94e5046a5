"""What both environments have in common: a rollout to look at, and a window to show it in.

Shapes: B worlds, T video frames, H, W pixels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Discrete

from magi_world.envs.config import RenderMode
from magi_world.envs.rollout import Rollout
from magi_world.envs.spaces import CommandSpace, commands_of
from magi_world.envs.stats import Stats
from magi_world.envs.viewer import Viewer, tiled
from magi_world.world.chunk import Chunk
from magi_world.world.world import Steer, World

# What is known before there is a world; each environment has its own pace.
METADATA: dict[str, Any] = {
    "render_modes": ["human", "rgb_array", "rgb_array_list"],
    "render_fps": 2,
}


class RolloutEnv:
    """Mixed into `MagiWorldEnv` and `MagiWorldVectorEnv`."""

    _rollout: Rollout
    _spec: EnvSpec | None = None
    _viewer: Viewer | None = None  # there already when a constructor that failed is cleaned up

    @property
    def world(self) -> World:
        """The world behind it. Stepped from outside, the environment does not know of it."""
        return self._rollout.world

    @property
    def commands(self) -> tuple[str, ...]:
        """What the world was taught to obey, in the order of the numbers of discrete actions."""
        return commands_of(self.world.spec)

    @property
    def spec(self) -> EnvSpec | None:
        """What it was made by; None unless `gymnasium.make` or `make_vec` did."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        # Whoever reads the length of an episode there should find it, however it was given.
        most = self._rollout.config.max_chunks
        if spec is not None and spec.max_episode_steps is None and most is not None:
            spec = replace(spec, max_episode_steps=most)
        self._spec = spec

    @property
    def _max_episode_steps(self) -> int | None:
        return self._rollout.config.max_chunks  # LeRobot asks for it by this name

    @property
    def task_description(self) -> str:
        """The scene, in words: what LeRobot shows its policies."""
        prompt = self._rollout.config.prompt
        return prompt if isinstance(prompt, str) else self.world.spec.description

    def _one_action_space(self) -> CommandSpace | Discrete:
        if self._rollout.config.actions == "discrete":
            return Discrete(len(self.commands))
        return CommandSpace(self.commands)

    @property
    def chunk(self) -> Chunk | None:
        """The newest chunk of every world, as it was made; None before the first reset."""
        return self._rollout.chunk

    @property
    def stats(self) -> Stats:
        """How long things took."""
        return self._rollout.stats

    @property
    def steer(self) -> Steer:
        """As it was given."""
        return self._rollout.config.steer

    @property
    def jumps(self) -> int:
        """How often a snapshot was restored."""
        return self._rollout.jumps

    @property
    def source_name(self) -> str | None:
        """What the world was loaded by; None if a `World` was given."""
        return self._rollout.source.name

    def shown_chunk(self) -> Chunk:
        """The newest chunk, decoded.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset.
        """
        return self._rollout.shown()

    def _pictures(self) -> list[Any] | None:
        """What `render` gives, one per world; None in a window and without a render mode."""
        mode = self._rollout.config.render_mode
        if mode is None:
            gym.logger.warn(
                "render() was called without a render_mode; give one to make or make_vec, e.g. "
                "render_mode='rgb_array'"
            )
        if mode in (None, "human"):
            return None  # in a window, reset and step have shown it
        frames = self._rollout.frames()
        if mode == "rgb_array":
            return [world[-1].copy() for world in frames]
        return [[f.copy() for f in world] for world in frames]

    def _show_window(self) -> None:
        """Play the newest chunk in the window, if there is to be one."""
        if self._rollout.config.render_mode != "human":
            return
        picture: np.ndarray = tiled(self._rollout.frames())
        if self._viewer is None:
            height, width = picture.shape[1:3]
            self._viewer = Viewer((height, width), self.world.spec.fps)
        prompts = self.shown_chunk().prompts
        self._viewer.show(picture, f"{self.world.spec.name}: {', '.join(prompts)[:80]}")

    def _close_window(self) -> None:
        if self._viewer is not None:
            self._viewer.close()
        self._viewer = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_viewer": None}  # a window cannot be copied


def metadata(world: World, mode: RenderMode | None) -> dict[str, Any]:
    """What an environment says about itself, with the keys of its commands by name."""
    keys = {key: command.name for command in world.spec.commands for key in command.keys}
    return {**METADATA, "render_fps": render_fps(world, mode), "keys": keys}


def render_fps(world: World, mode: RenderMode | None) -> int:
    """How many renders a second are the world's own pace; whole, as `gymnasium.utils.play` asks.

    A frame is rendered once a chunk; in a list, and in a window, there are all of them.
    """
    spec = world.spec
    pace = spec.fps if mode in ("human", "rgb_array_list") else 1 / spec.chunk_seconds
    return max(1, round(pace))
