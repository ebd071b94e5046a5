"""Many worlds as one Gymnasium vector environment: a single forward pass for all of them.

Shapes: B worlds (``num_envs``), T video frames, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from magi_world.envs.base import METADATA, RolloutEnv, check_count, metadata
from magi_world.envs.config import Actions, EnvConfig, Observation, Output, RenderMode, WorldFactory
from magi_world.envs.reset import (
    EpisodeStart,
    ResetOptions,
    StartLike,
    read_options,
    reset_mask,
    seeds_per_world,
    starts_per_world,
)
from magi_world.envs.rewards import RewardLike
from magi_world.envs.rollout import Rollout
from magi_world.envs.spaces import commands_per_world
from magi_world.envs.state import EnvSnapshot
from magi_world.loading import DEFAULT_WORLD, LoadOptions
from magi_world.world.snapshot import Snapshot
from magi_world.world.world import Steer, World

Batch = np.ndarray | Tensor
Step = tuple[Batch, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


class MagiWorldVectorEnv(RolloutEnv, VectorEnv[Batch, Any, np.ndarray]):
    """B worlds, stepped in one batch; each is what `MagiWorldEnv` is.

    World i with seed s gives what a `MagiWorldEnv` with seed s gives, up to the rounding of sums:
    to the byte on some processors in float32, to a grey level here and there on others. An episode
    that ends touches no other world.

    Autoreset: "SAME_STEP" (default) resets an ended world at once: the observation is the new
    episode's first, the last one is in ``info["final_obs"]`` and ``info["final_info"]``.
    "NEXT_STEP" resets it in the following step, whose chunk of that world is thrown away; RLlib and
    Gymnasium's vector observation wrappers want it.
    "DISABLED" leaves it to ``reset(options={"reset_mask": ...})``.
    """

    metadata: dict[str, Any] = METADATA

    def __init__(
        self,
        num_envs: int = 1,
        world: str | Path | World = DEFAULT_WORLD,
        observation: Observation = "chunk",
        reward: RewardLike = None,
        max_chunks: int | None = None,
        prompt: str | Sequence[str | None] | None = None,
        start: StartLike | Sequence[StartLike] = None,
        seed: int | None = None,
        steer: Steer = "now",
        render_mode: RenderMode | None = None,
        actions: Actions = "text",
        frames: int = 4,
        strict: bool = True,
        load: LoadOptions | Mapping[str, Any] | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        output: Output = "numpy",
        max_episode_steps: int | None = None,
    ) -> None:
        """What is not named here is as in `MagiWorldEnv`.

        Args:
            num_envs: B.
            prompt: one for all worlds, or a list with one for each.
            start: the same.
            seed: what resets without a seed of their own use: seed + i in world i.
            autoreset_mode: "SAME_STEP", "NEXT_STEP" or "DISABLED".
            output: "numpy", or "torch" for observations that stay on the world's device; rewards
                and ends are arrays always.
            max_episode_steps: what `gymnasium.make_vec` calls ``max_chunks``.

        Raises:
            ValueError: an argument that cannot be; the message says what can.
            FileNotFoundError: a file that is not there.
        """
        check_count(num_envs, "num_envs")
        horizon = min((n for n in (max_chunks, max_episode_steps) if n is not None), default=None)
        config = EnvConfig(
            observation, horizon, prompt, seed, steer, render_mode, actions, frames, strict, output
        )
        mode = _autoreset_mode(autoreset_mode)
        rollout = Rollout(WorldFactory(world, load), num_envs, config, reward)
        self._setup(rollout, starts_per_world(rollout.world, start, num_envs), mode)

    def _setup(self, rollout: Rollout, starts: Sequence[EpisodeStart], mode: AutoresetMode) -> None:
        self._share(rollout, starts)
        self.autoreset_mode, self.num_envs = mode, rollout.num_worlds
        self.single_observation_space = rollout.space
        self.single_action_space: gym.Space[Any] = self._one_action_space()
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.metadata = {**metadata(rollout), "autoreset_mode": mode}

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The generator of every world, from which its later seeds are drawn."""
        return tuple(self._generators[row] for row in range(self.num_envs))

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seed of each generator; -1 where it came from a snapshot."""
        _ = self.np_random
        return tuple(self._generators.seeds)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Batch, dict[str, Any]]:
        """Start episodes in all worlds, or in those of ``options["reset_mask"]``.

        Args:
            seed: world i gets seed + i, or one per world; None draws them.
            options: as in `MagiWorldEnv`, ``prompt``, ``start``, ``image`` and ``video`` also as
                a list with one per world; ``reset_mask``, bool (B,). A snapshot of one world is
                continued in all of them.

        Returns:
            Observations (B, ...) of all worlds; infos of those that were reset.

        Raises:
            ValueError: an option or seed that cannot be. Nothing has changed then.
        """
        self._check_open()
        given = read_options(self.world, options, self.num_envs, ("reset_mask",))
        rows = reset_mask((options or {}).get("reset_mask"), self.num_envs)
        seeds = seeds_per_world(seed, self.num_envs)
        infos = self._reset_rows(rows, seeds, given)
        return self._shown(), self._merged(rows, infos, {})

    def step(self, actions: Any) -> Step:
        """The next chunk of every world.

        Args:
            actions: B texts, or B numbers if actions are discrete.

        Raises:
            TypeError: no list, tuple, array or tensor.
            ValueError: not B actions, or one that is not in the action space. Nothing has changed.
            gymnasium.error.ResetNeeded: before the first reset; with "DISABLED" also while a world
                has ended.
        """
        self._check_started()
        over = np.flatnonzero(self._rollout.ended).tolist()
        if over and self.autoreset_mode is AutoresetMode.DISABLED:
            raise ResetNeeded(
                f"the episodes of worlds {over} have ended; call "
                'reset(options={"reset_mask": ...}) before step()'
            )
        commands = commands_per_world(
            self.single_action_space, self.commands, actions, self.num_envs, over
        )
        score, truncated, infos = self._rollout.advance(commands)
        reward, ended = score.reward.copy(), score.ended.copy()
        if over:  # NEXT_STEP: this step was their reset
            for row, info in zip(over, self._restart(over), strict=True):
                reward[row], ended[row], truncated[row], infos[row] = 0.0, False, False, info
        merged: dict[str, Any] = {}
        done = np.flatnonzero(ended | truncated).tolist()
        if done and self.autoreset_mode is AutoresetMode.SAME_STEP:
            last = self._observations()
            for row in done:
                final = last[row].copy() if isinstance(last, np.ndarray) else last[row].clone()
                merged = self._add_info(merged, {"final_obs": final, "final_info": infos[row]}, row)
            for row, info in zip(done, self._restart(done), strict=True):
                infos[row] = info
        merged = self._merged(range(self.num_envs), infos, merged)
        return self._shown(), reward, ended, truncated, merged

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """One value per world: of an attribute, or of a method that is called once.

        What belongs to the whole batch comes B times.

        Raises:
            AttributeError: there is none of that name.
            ValueError: a method that moves all worlds at once.
        """
        if name in ("reset", "step", "close", "restore"):
            raise ValueError(f"name is {name!r}; it acts on all worlds: call envs.{name}(...)")
        single = f"single_{name}" if name in ("action_space", "observation_space") else name
        value = getattr(self, single)
        if callable(value) and not isinstance(value, gym.Space):
            value = value(*args, **kwargs)
        if name in ("render", "np_random", "np_random_seed") and value is not None:
            return tuple(value)
        return (value,) * self.num_envs

    def get_attr(self, name: str) -> tuple[Any, ...]:
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute, to the same value for all worlds.

        Raises:
            ValueError: not one value, or B equal ones: the worlds are one environment.
        """
        given = list(values) if isinstance(values, list | tuple) else [values]
        if len(given) not in (1, self.num_envs) or any(
            v is not given[0] and v != given[0] for v in given
        ):
            raise ValueError(
                f"{name} is {values!r:.80}; it belongs to all {self.num_envs} worlds; give one"
            )
        setattr(self, name, given[0])

    def render(self) -> tuple[Any, ...] | None:
        """Per world its last frame (H, W, 3), or all of its newest chunk; None in a window."""
        pictures = self._pictures()
        return None if pictures is None else tuple(pictures)

    def restore(
        self, snapshot: EnvSnapshot | Snapshot | str | Path
    ) -> tuple[Batch, dict[str, Any]]:
        """Continue from a snapshot (or its file); one of a single world is continued in all.

        Raises:
            ValueError: a snapshot of another world or number of worlds. Nothing has changed then.
        """
        infos = self._restored(snapshot)
        return self._shown(), self._merged(range(self.num_envs), infos, {})

    def fork(self, n: int) -> list[MagiWorldVectorEnv]:
        """``n`` environments of B worlds that continue from here; weights are shared."""
        self._check_open()
        check_count(n)
        states, mode = self._generators.states(), self.autoreset_mode
        forks = (self._rollout.forked(1) for _ in range(n))
        return [MagiWorldVectorEnv.of(fork, self._starts, states, mode) for fork in forks]

    @classmethod
    def of(
        cls,
        rollout: Rollout,
        starts: Sequence[EpisodeStart],
        rngs: Sequence[dict[str, Any]],
        autoreset_mode: str | AutoresetMode,
    ) -> MagiWorldVectorEnv:
        """An environment around a rollout, as forks have it."""
        env = object.__new__(cls)
        env._setup(rollout, starts, _autoreset_mode(autoreset_mode))
        env._generators.restore(rngs)
        return env

    def _restart(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        return self._begin_rows(rows, [None] * self.num_envs, ResetOptions())

    def _observations(self) -> Batch:
        seen = self._rollout.observations()
        return seen if self._rollout.config.output == "torch" else seen.cpu().numpy()

    def _shown(self) -> Batch:
        self._show_window()
        return self._observations()

    def _merged(
        self, rows: Sequence[int], infos: Sequence[dict[str, Any]], merged: dict[str, Any]
    ) -> dict[str, Any]:
        for row, info in zip(rows, infos, strict=True):
            merged = self._add_info(merged, info, row)
        return merged


def _autoreset_mode(value: str | AutoresetMode) -> AutoresetMode:
    for mode in AutoresetMode:
        if value is mode or (isinstance(value, str) and value in (mode.value, mode.name)):
            return mode
    names = ", ".join(repr(mode.name) for mode in AutoresetMode)
    raise ValueError(f"autoreset_mode is {value!r}; it must be one of {names}")


def split_infos(merged: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """One info per world of a vector environment's merged ones."""
    rows: list[dict[str, Any]] = [{} for _ in range(count)]
    for key, value in merged.items():
        mask = merged.get(f"_{key}")
        if mask is None:
            continue
        parts = split_infos(value, count) if isinstance(value, dict) else value
        for row in np.flatnonzero(mask):
            part = parts[row]
            rows[row][key] = part.item() if isinstance(part, np.generic) else part
    return rows
