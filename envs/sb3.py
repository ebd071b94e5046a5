"""Stable-Baselines3 on a batch of worlds.

envs = gym.make_vec("magi_world:MagiWorld-v0", num_envs=8)
envs = VectorChunkToImage(VectorDiscreteCommands(envs))
PPO("CnnPolicy", SB3VecEnv(envs)).learn(10_000)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, VectorEnv

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise ImportError(
        "magi_world.envs.sb3 needs Stable-Baselines3; pip install 'magi-world[sb3]'"
    ) from error


class SB3VecEnv(VecEnv):
    """A Gymnasium vector environment as Stable-Baselines3's `VecEnv`.

    `final_obs` becomes ``terminal_observation``, and ``TimeLimit.truncated`` says which episodes
    were only cut off.
    """

    def __init__(self, envs: VectorEnv[Any, Any, np.ndarray]) -> None:
        """Raises:
        ValueError: texts for actions, or an autoreset that is not "SAME_STEP".
        """
        if not isinstance(envs, VectorEnv):
            raise ValueError(f"envs is a {type(envs).__name__}; it must be a vector environment")
        if envs.metadata.get("autoreset_mode") is not AutoresetMode.SAME_STEP:
            raise ValueError(
                f"autoreset_mode is {envs.metadata.get('autoreset_mode')}; Stable-Baselines3 needs "
                "'SAME_STEP'"
            )
        if not isinstance(envs.single_action_space, Discrete):
            raise ValueError(
                f"the actions are {envs.single_action_space}; Stable-Baselines3 needs numbers; "
                "wrap the environment in VectorDiscreteCommands"
            )
        self.envs = envs
        self._actions: np.ndarray | None = None
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> np.ndarray:
        """Start all episodes, with the seeds of `seed` and the options of `set_options`."""
        seeds = None if all(s is None for s in self._seeds) else list(self._seeds)
        if any(options != self._options[0] for options in self._options):
            raise ValueError("options differ between worlds; give one dict for all of them")
        options = self._options[0] or None
        seen, infos = self.envs.reset(seed=seeds, options=options)  # type: ignore[arg-type]
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = split_infos(infos, self.num_envs)
        return seen

    def step_async(self, actions: np.ndarray) -> None:
        """Take note of the actions."""
        self._actions = np.asarray(actions)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """The step: observations, rewards, ends, and one info per world."""
        if self._actions is None:
            raise ValueError("step_wait() without step_async(actions) before it")
        seen, rewards, terminated, truncated, merged = self.envs.step(self._actions)
        self._actions = None
        rows, done = split_infos(merged, self.num_envs), terminated | truncated
        for row in map(int, np.flatnonzero(done)):
            final = rows[row].pop("final_info", {})
            last = rows[row].pop("final_obs")
            self.reset_infos[row] = rows[row]
            rows[row] = {**final, "terminal_observation": last}
        for row, info in enumerate(rows):
            info["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
        return seen, rewards.astype(np.float32), done, rows

    def close(self) -> None:
        """Close the worlds."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute; it is the same for all worlds."""
        return [getattr(self._holder(attr_name), attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute, for all worlds at once."""
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(
                f"{attr_name} belongs to all {self.num_envs} worlds; leave indices out"
            )
        setattr(self.envs.unwrapped, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the batch, once; every chosen world gets what it returned."""
        result = getattr(self._holder(method_name), method_name)(*method_args, **method_kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Whether a wrapper is around the batch."""
        layer: Any = self.envs
        found = isinstance(layer, wrapper_class)
        while not found and hasattr(layer, "env"):
            layer = layer.env
            found = isinstance(layer, wrapper_class)
        return [found for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        """The last frame of every world; None without ``render_mode="rgb_array"``."""
        if self.render_mode != "rgb_array":
            return [None] * self.num_envs
        pictures: Any = self.envs.render()
        return list(pictures)

    def _holder(self, name: str) -> Any:
        layer: Any = self.envs
        while name not in dir(layer) and hasattr(layer, "env"):
            layer = layer.env
        return layer


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
