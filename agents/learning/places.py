"""Where a policy is trained: a world's dream, or the simulator itself, behind one interface.

Shapes: B worlds, H, W pixels, k frames in a picture, n frames kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol, cast

import numpy as np
import torch
from gymnasium.vector import VectorWrapper
from torch import Tensor

from magi_world.agents.learning.config import TrainAgentConfig
from magi_world.agents.learning.starts import recorded_starts, with_starts
from magi_world.envs.rewards import LearnedReward, Reward, UncertaintyPenalty
from magi_world.envs.sb3 import SB3VecEnv
from magi_world.envs.state import EnvSnapshot
from magi_world.envs.vector import MagiWorldVectorEnv
from magi_world.envs.wrappers import VectorChunkToImage, VectorDiscreteCommands
from magi_world.io.weights import load_tensors, save_tensors
from magi_world.loading import Dtype, load_world
from magi_world.world.parts import WorldParts
from magi_world.world.world import World

STARTS, WORLDS, FRAMES = "starts.safetensors", "worlds.safetensors", "frames.safetensors"


@dataclass(frozen=True, eq=False)
class PlaceState:
    """The running episodes of a `Dream`.

    kept: uint8 (B, n, H, W, 3), the frames that pictures are made of.
    """

    worlds: EnvSnapshot
    kept: np.ndarray

    def save(self, folder: Path) -> None:
        """Write it into a folder."""
        self.worlds.save(folder / WORLDS)
        save_tensors(folder / FRAMES, {"kept": torch.from_numpy(self.kept)})

    @staticmethod
    def load(folder: Path) -> PlaceState | None:
        """Read it; None if it is not there."""
        if not (folder / WORLDS).exists():
            return None
        kept = load_tensors(folder / FRAMES)["kept"].numpy().copy()
        return PlaceState(EnvSnapshot.load(folder / WORLDS), kept)


class Place(Protocol):
    """What the training needs to know of its environment.

    vec: numbers of commands in, pictures (B, H, W, 3 k) out.
    """

    vec: SB3VecEnv
    name: str
    fingerprint: str
    commands: tuple[str, ...]
    frame_size: tuple[int, int]
    frames_per_chunk: int
    device: torch.device

    @property
    def seconds(self) -> float:
        """Spent in the world's model, or in the simulator, so far."""

    def snapshot(self) -> PlaceState | None:
        """The running episodes; None where they cannot be kept."""

    def restore(self, state: PlaceState) -> None:
        """Go on with them."""


def dream_pictures(
    config: TrainAgentConfig,
    parts: WorldParts,
    attention: Any = "sdpa",
    num_envs: int | None = None,
    autoreset_mode: str = "SAME_STEP",
) -> VectorChunkToImage:
    """The dream as a vector environment: numbers of commands in, pictures out.

    Raises:
        ValueError: the world has no heads.
    """
    world = World(parts, 1, attention, config.noise_scale)
    reward: dict[Reward, float] = {LearnedReward(sample_end=config.sample_end): 1.0}
    if config.uncertainty and parts.heads is not None:
        reward[UncertaintyPenalty(parts.heads)] = config.uncertainty
    worlds = MagiWorldVectorEnv(
        num_envs or config.num_envs,
        world,
        reward=reward,
        max_chunks=config.horizon,
        autoreset_mode=autoreset_mode,
    )
    return VectorChunkToImage(VectorDiscreteCommands(worlds), config.frames, config.every)


class Dream:
    """B worlds in one batch; rewards and ends are what the world's heads predict."""

    def __init__(
        self, config: TrainAgentConfig, parts: WorldParts, attention: Any = "sdpa"
    ) -> None:
        """``parts`` of the world, with the starts that it is to have.

        Raises:
            ValueError: the world has no heads.
        """
        self.pictures = dream_pictures(config, parts, attention)
        self.worlds = cast(MagiWorldVectorEnv, self.pictures.unwrapped)
        self.vec = SB3VecEnv(self.pictures)
        spec = parts.spec
        self.name, self.fingerprint = spec.name, spec.fingerprint
        self.commands = self.worlds.commands
        self.frame_size, self.frames_per_chunk = spec.frame_size, spec.frames_per_chunk
        self.device = self.worlds.world.device

    @property
    def seconds(self) -> float:
        """Spent in the world's model so far."""
        return self.worlds.stats.step_seconds + self.worlds.stats.reset_seconds

    def snapshot(self) -> PlaceState:
        """The running episodes; memory is shared until they go on."""
        return PlaceState(self.worlds.snapshot(), np.array(self.pictures.kept))

    def restore(self, state: PlaceState) -> None:
        """Go on with them.

        Raises:
            ValueError: they are of another world or another number of worlds.
        """
        self.worlds.restore(state.worlds)
        self.pictures.kept = state.kept.copy()


class Simulator:
    """B simulators side by side, for the ceiling: what training in the real thing brings."""

    def __init__(self, config: TrainAgentConfig) -> None:
        """Raises:
        ValueError, FileNotFoundError: as `magi_world.envs.real.make_real_vector`.
        ImportError: the simulator is not installed.
        """
        from magi_world.envs.real import make_real_vector
        from magi_world.training.settings import read_settings

        settings = read_settings(config.real or "")
        self._timed = _Timed(
            make_real_vector(settings, config.num_envs, config.horizon, config.frames, config.every)
        )
        self.vec = SB3VecEnv(self._timed)
        self.name, self.fingerprint = settings.name, ""
        self.commands = tuple(settings.commands)
        self.frame_size = settings.record.frame_size
        self.frames_per_chunk = settings.record.frames_per_chunk
        chosen = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.device = torch.device(chosen)

    @property
    def seconds(self) -> float:
        """Spent in the simulators so far."""
        return self._timed.seconds

    def snapshot(self) -> None:
        """A simulator's episodes cannot be kept."""

    def restore(self, state: PlaceState) -> None:
        """Raises:
        ValueError: always.
        """
        raise ValueError("a simulator cannot go on with episodes of a world")


def open_place(config: TrainAgentConfig, folder: Path) -> Place:
    """The place that a configuration asks for; recorded starts are kept in the run's folder.

    Raises:
        ValueError, FileNotFoundError, ImportError: it cannot be opened.
    """
    if config.real is not None:
        return Simulator(config)
    return Dream(config, open_parts(config, folder))


def open_parts(config: TrainAgentConfig, folder: Path) -> WorldParts:
    """The world of a configuration, with the starts that it is to have.

    Raises:
        ValueError, FileNotFoundError: it cannot be opened, or has no heads.
    """
    world = load_world(
        config.world,
        device=config.device,
        dtype=cast(Dtype | None, config.dtype),
        num_steps=config.denoise_steps,
    )
    parts = world.parts
    if parts.heads is None:
        raise ValueError(f"the world {parts.spec.name!r} has no heads: nothing in it is a reward")
    if config.starts is not None:
        parts = with_starts(parts, _kept_starts(config, parts, folder / STARTS))
    return parts


def _kept_starts(config: TrainAgentConfig, parts: WorldParts, path: Path) -> Tensor:
    if not path.exists():
        found = recorded_starts(parts, config.starts or "", config.num_starts, config.seed)
        save_tensors(path, {"starts": found})
    return load_tensors(path)["starts"]


class _Timed(VectorWrapper):
    """Knows how long the environments inside it took."""

    seconds = 0.0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        begin = perf_counter()
        result = self.env.reset(**options)
        self.seconds += perf_counter() - begin
        return result

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        begin = perf_counter()
        result = self.env.step(actions)
        self.seconds += perf_counter() - begin
        return result
