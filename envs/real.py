"""The simulator that a world was trained on, behind the interface of the world.

An agent that learnt in the dream is judged here: the same commands, the same length of a chunk, the
same pictures. Shapes: T video frames, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from magi_world.envs.config import EnvConfig, RenderMode
from magi_world.envs.reset import whole_seed
from magi_world.envs.spaces import CommandSpace, check_choice, is_int
from magi_world.envs.state import MAX_SEED
from magi_world.envs.wrappers import ChunkToImage, DiscreteCommands
from magi_world.simulator import ChunkSimulator, SimulatedChunk
from magi_world.training.settings import WorldTrainConfig, read_settings

ConfigLike = WorldTrainConfig | str | Path


class RealWorldEnv(gym.Env[np.ndarray, str]):
    """The simulator of a training configuration, as `MagiWorldEnv` shows a world.

    ## Action
    Text: a command of the configuration or one of its phrasings, held for one chunk.

    ## Observation
    All frames of the chunk, uint8 (T, H, W, 3), made smaller as they were for the recording.

    ## Reward and end
    ``heads.reward`` of the configuration: what each event is worth, times how often it really
    happened, or "environment", the simulator's own. Death (the
    simulator ends the episode) terminates; the simulator's own limit and ``max_chunks`` truncate.
    Where the simulator says both at once, it is its limit, as ViZDoom reports it.

    ## Info
    ``chunk``, ``prompt``, ``lands``, ``skip``, ``seed`` and ``understood`` as in `MagiWorldEnv`.
    ``events``: how often each happened in the chunk, with ``end`` and the name of death 0 or 1.
    ``simulator_reward``: the simulator's own, summed over the chunk.

    ## Start
    ``reset(seed=s)`` starts the simulator with seed s; without, a seed is drawn from `np_random`.
    Chunk 0 is played under the configuration's default command. Its reward is not given to anyone,
    but ``info["simulator_reward"]`` has the simulator's.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "rgb_array_list"], "render_fps": 2}  # noqa: RUF012

    def __init__(
        self,
        config: ConfigLike,
        max_chunks: int | None = None,
        seed: int | None = None,
        render_mode: RenderMode | None = None,
    ) -> None:
        """Args:
            config: a training configuration, or the path of its YAML.
            max_chunks: chunks of an episode after chunk 0; None leaves the end to the simulator.
            seed: what each reset without a seed of its own uses; None draws a new one each time.
            render_mode: None, "rgb_array" or "rgb_array_list".

        Raises:
            ValueError: an argument that cannot be, or a reward for an event that nobody sees.
            FileNotFoundError: there is no such configuration.
            ImportError: the simulator is not installed.
        """
        check_choice("render_mode", render_mode, (None, *self.metadata["render_modes"]))
        EnvConfig(max_chunks=max_chunks, seed=seed)
        self.config = config if isinstance(config, WorldTrainConfig) else read_settings(config)
        self.max_chunks, self.render_mode, self._fixed = max_chunks, render_mode, seed
        record, heads = self.config.record, self.config.heads
        known = [*record.events, heads.death]
        if unknown := sorted(set(heads.worth) - set(known)):
            raise ValueError(f"heads.reward names {unknown}; recorded events are {known}")
        self.simulator = ChunkSimulator(record)
        pace = self.config.fps if render_mode == "rgb_array_list" else 0
        chunks_a_second = self.config.fps / record.frames_per_chunk
        self.metadata = {**self.metadata, "render_fps": pace or max(1, round(chunks_a_second))}
        shape = (record.frames_per_chunk, *record.frame_size, 3)
        self.observation_space = Box(0, 255, shape, np.uint8)
        self.action_space: CommandSpace = CommandSpace(tuple(record.actions))
        self._rows = _phrasebook(self.config)
        self._chunk: SimulatedChunk | None = None
        self._index = self._lands = self._seed = 0
        self._over = self._closed = False

    @property
    def commands(self) -> tuple[str, ...]:
        return self.action_space.commands

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode and play chunk 0.

        Raises:
            ValueError: options are given, a seed that is none, or the episode ended in chunk 0.
        """
        self._check_open()
        if options:
            raise ValueError(f"options is {options!r:.80}; the simulator starts as its seed says")
        seed = whole_seed(seed)
        super().reset(seed=seed)
        if seed is None:
            drawn = self._fixed is None
            seed = int(self.np_random.integers(MAX_SEED)) if drawn else self._fixed
        self._seed = int(seed or 0)
        self.simulator.reset(self._seed)
        default = self.config.default_command or self.commands[0]
        self._chunk = self.simulator.chunk(self.commands.index(default))
        self._index = self._lands = 0
        self._over = self._chunk.ended or self._chunk.cut
        if self._over:
            raise ValueError(
                f"the episode of seed {seed} ended in chunk 0, under default_command {default!r}; "
                "it must be a command that one survives"
            )
        return self._seen(), self._info()

    def step(self, action: str) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """The next chunk, under a command.

        Raises:
            ValueError: not a command of the simulator. The episode goes on then.
            gymnasium.error.ResetNeeded: before the first reset, and after the end of an episode.
        """
        self._check_open()
        if self._chunk is None:
            raise ResetNeeded("step() before the first reset(); call reset()")
        if self._over:
            raise ResetNeeded("the episode has ended; call reset() before step()")
        row = self._row(action)
        if row != self._chunk.command:
            self._lands = self._index + 1
        self._chunk, self._index = self.simulator.chunk(row), self._index + 1
        info = self._info()
        worth = self.config.heads.worth.items()
        reward = float(sum(value * info["events"][name] for name, value in worth))
        if self.config.heads.from_environment:
            reward = self._chunk.reward
        limit = self.max_chunks is not None and self._index >= self.max_chunks
        terminated = bool(info["events"]["end"])
        truncated = self._chunk.cut or limit
        self._over = terminated or truncated
        return self._seen(), reward, terminated, truncated, info

    def render(self) -> Any:
        """The last frame (H, W, 3), or a list of all frames of the newest chunk."""
        self._check_open()
        if self.render_mode is None or self._chunk is None:
            return None
        frames = self._seen()
        return frames[-1] if self.render_mode == "rgb_array" else list(frames)

    def close(self) -> None:
        """Stop the simulator. A second call does nothing."""
        if not self._closed:
            self.simulator.close()
        self._closed = True

    def _row(self, action: object) -> int:
        said = " ".join(self.action_space.check(action).lower().split())
        if said not in self._rows:
            raise ValueError(
                f"action is {action!r:.80}; the simulator knows {', '.join(self.commands)}, and "
                "the phrasings of these in the configuration"
            )
        return self._rows[said]

    def _seen(self) -> np.ndarray:
        assert self._chunk is not None, "there was a reset"
        return self._chunk.frames.copy()

    def _info(self) -> dict[str, Any]:
        chunk = self._chunk
        assert chunk is not None, "there was a reset"
        died, prompt = float(chunk.ended and not chunk.cut), self.commands[chunk.command]
        counts = zip(self.config.record.events, chunk.events, strict=True)
        return {
            "chunk": self._index,
            "prompt": prompt,
            "lands": self._lands,
            "skip": 0,
            "seed": self._seed,
            "understood": {"command": prompt, "confidence": 1.0, "queue": []},
            "events": {
                **{name: float(count) for name, count in counts},
                self.config.heads.death: died,
                "end": died,
            },
            "simulator_reward": chunk.reward,
        }

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedEnvironmentError("the environment was closed; make a new one")


def make_real_vector(
    config: ConfigLike,
    num_envs: int,
    max_chunks: int | None = None,
    frames: int = 4,
    every: int = 1,
    commands: Sequence[str] | None = None,
) -> SyncVectorEnv:
    """Simulators side by side, as `magi_world.envs.sb3.SB3VecEnv` takes them.

    Actions are numbers of the commands, observations pictures uint8 (num_envs, H, W, 3 frames). An
    ended episode begins anew in the same step.

    Args:
        frames, every: as in `magi_world.envs.wrappers.ChunkToImage`.
        commands: what the numbers stand for; by default all of the configuration.

    Raises:
        As `RealWorldEnv`, and ValueError for a number of environments below 1.
    """
    if not is_int(num_envs) or num_envs < 1:
        raise ValueError(f"num_envs is {num_envs!r}; it must be a whole number from 1")
    settings = config if isinstance(config, WorldTrainConfig) else read_settings(config)

    def make() -> gym.Env[Any, Any]:
        numbers = DiscreteCommands(RealWorldEnv(settings, max_chunks), commands)
        return ChunkToImage(numbers, frames, every)

    return SyncVectorEnv([make] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


def _phrasebook(config: WorldTrainConfig) -> dict[str, int]:
    """What can be said -> row of the command; a command's own name goes before others' phrases."""
    rows: dict[str, int] = {}
    for row, command in enumerate(config.commands.values()):
        for phrase in (*command.phrases, *command.held_out):
            rows[" ".join(phrase.lower().split())] = row
    names = {" ".join(name.lower().split()): row for row, name in enumerate(config.commands)}
    return {**rows, **names}
