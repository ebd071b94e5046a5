"""What both environments are made of: a rollout, starts and generators, and a window to show it in.

Shapes: B worlds, T video frames, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.spaces import Discrete

from magi_world.envs.reset import EpisodeStart, ResetOptions, scenes_per_world
from magi_world.envs.rollout import Rollout, Stats
from magi_world.envs.spaces import CommandSpace, commands_of, is_int
from magi_world.envs.state import EnvSnapshot, Generators, load_snapshot
from magi_world.envs.viewer import Viewer, tiled
from magi_world.world.chunk import Chunk
from magi_world.world.snapshot import Snapshot
from magi_world.world.world import Steer, World

MOST_WORLDS = 65_536  # in a batch; far beyond any machine
# What is known before there is a world; each environment has its own pace.
METADATA: dict[str, Any] = {
    "render_modes": ["human", "rgb_array", "rgb_array_list"],
    "render_fps": 2,
}


class RolloutEnv:
    """Mixed into `MagiWorldEnv` (B = 1) and `MagiWorldVectorEnv`."""

    closed = False
    render_mode: str | None
    _rollout: Rollout
    _starts: list[EpisodeStart]
    _generators: Generators
    _spec: EnvSpec | None = None
    _viewer: Viewer | None = None  # there already when a constructor that failed is cleaned up

    def _share(self, rollout: Rollout, starts: Sequence[EpisodeStart]) -> None:
        self._rollout, self._starts = rollout, list(starts)
        self._generators = Generators(rollout.num_worlds)
        self.render_mode = rollout.config.render_mode

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
        most = self._max_episode_steps
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

    @property
    def chunk(self) -> Chunk | None:
        """The newest chunk of every world, as it was made; None before the first reset."""
        return self._rollout.chunk

    @property
    def stats(self) -> Stats:
        return self._rollout.stats

    @property
    def steer(self) -> Steer:
        return self._rollout.config.steer

    @property
    def jumps(self) -> int:
        return self._rollout.jumps

    @property
    def source_name(self) -> str | None:
        """What the world was loaded by; None if a `World` was given."""
        return self._rollout.factory.name

    def shown_chunk(self) -> Chunk:
        """The newest chunk, decoded.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset.
        """
        return self._rollout.shown()

    def snapshot(self) -> EnvSnapshot:
        """The state in the middle of an episode; what never changes is shared with it.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset.
        """
        self._check_open()
        return self._rollout.snapshot(self._generators.states())

    def close(self, **options: Any) -> None:
        """Close the window. A second call does nothing."""
        if self._viewer is not None:
            self._viewer.close()
        self._viewer, self.closed = None, True

    def _one_action_space(self) -> CommandSpace | Discrete:
        if self._rollout.config.actions == "discrete":
            return Discrete(len(self.commands))
        return CommandSpace(self.commands)

    def _reset_rows(
        self, rows: Sequence[int], seeds: Sequence[int | None], given: ResetOptions
    ) -> list[dict[str, Any]]:
        """New episodes in some worlds; ``seeds`` has one per world of all. Their infos."""
        before = self._generators.copy()
        try:
            for row in rows:
                self._generators.seed(row, seeds[row])
            if given.snapshot is not None:
                return self._rollout.restore(given.snapshot, rows, fresh=True)
            return self._begin_rows(rows, seeds, given)
        except BaseException:
            self._generators = before
            raise

    def _begin_rows(
        self, rows: Sequence[int], seeds: Sequence[int | None], given: ResetOptions
    ) -> list[dict[str, Any]]:
        config, count = self._rollout.config, len(self._starts)
        prompts = given.prompts or scenes_per_world(config.prompt, count)
        starts = given.starts or self._starts
        return self._rollout.begin(
            rows,
            [self._generators.draw(row, seeds[row], config.seed) for row in rows],
            [prompts[row] for row in rows],
            [starts[row] for row in rows],
        )

    def _restored(self, snapshot: EnvSnapshot | Snapshot | str | Path) -> list[dict[str, Any]]:
        self._check_open()
        if isinstance(snapshot, str | Path):
            snapshot = load_snapshot(snapshot)
        rows = range(self._rollout.num_worlds)
        infos = self._rollout.restore(snapshot, rows)
        if isinstance(snapshot, EnvSnapshot):
            alone = snapshot.num_worlds == 1
            self._generators.restore([snapshot.rngs[0 if alone else row] for row in rows])
        return infos

    def _pictures(self) -> list[Any] | None:
        """What `render` gives, one per world; None in a window and without a render mode."""
        self._check_open()
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

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError("the environment was closed; make a new one")

    def _check_started(self) -> None:
        self._check_open()
        if self.chunk is None:
            raise ResetNeeded("step() before the first reset(); call reset()")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_viewer": None}  # a window cannot be copied


def metadata(rollout: Rollout) -> dict[str, Any]:
    """What an environment says about itself, with the keys of its commands by name.

    ``render_fps`` is how many renders a second are the world's own pace; whole, as
    `gymnasium.utils.play` asks. A frame is rendered once a chunk; in a list, and in a window, there
    are all of them.
    """
    spec = rollout.world.spec
    keys = {key: command.name for command in spec.commands for key in command.keys}
    every = rollout.config.render_mode in ("human", "rgb_array_list")
    pace = spec.fps if every else 1 / spec.chunk_seconds
    return {**METADATA, "render_fps": max(1, round(pace)), "keys": keys}


def check_count(n: object, name: str = "n") -> None:
    """Raise ValueError unless there can be ``n`` worlds."""
    if not is_int(n) or not 1 <= n <= MOST_WORLDS:  # type: ignore[operator]
        raise ValueError(
            f"{name} is {n!r:.40}; it must be a whole number from 1 to {MOST_WORLDS:,}"
        )
