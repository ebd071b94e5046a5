"""Stable-Baselines3 on a batch of worlds.

envs = gym.make_vec("magi_world:MagiWorld-v0", num_envs=8)
envs = VectorChunkToImage(VectorDiscreteCommands(envs))
PPO("CnnPolicy", SB3VecEnv(envs)).learn(10_000)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, VectorEnv

from magi_world.envs.vector import split_infos

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
        self._actions = np.asarray(actions)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
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
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute; it is the same for all worlds."""
        return [getattr(self._holder(attr_name), attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
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
        found = any(isinstance(layer, wrapper_class) for layer in self._layers())
        return [found for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        """The last frame of every world; None without ``render_mode="rgb_array"``."""
        if self.render_mode != "rgb_array":
            return [None] * self.num_envs
        pictures: Any = self.envs.render()
        return list(pictures)

    def _holder(self, name: str) -> Any:
        *_, innermost = self._layers()
        return next((layer for layer in self._layers() if name in dir(layer)), innermost)

    def _layers(self) -> Iterator[Any]:
        """The batch with its wrappers, from outside."""
        layer: Any = self.envs
        while True:
            yield layer
            if not hasattr(layer, "env"):
                return
            layer = layer.env
