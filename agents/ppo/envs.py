"""Where a policy is trained: a world's dream, or the simulator itself, behind one interface.

Shapes: B worlds, T frames a chunk, H, W pixels, k frames in a picture; a start of n chunks has
latents C t h w.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import torch
from gymnasium.vector import VectorEnv, VectorWrapper
from torch import Tensor

from magi_world.agents.ppo.config import TrainAgentConfig
from magi_world.envs.real import make_real_vector
from magi_world.envs.rewards import LearnedReward, Reward, UncertaintyPenalty
from magi_world.envs.vector import MagiWorldVectorEnv
from magi_world.envs.wrappers import VectorChunkToImage, VectorDiscreteCommands
from magi_world.io.safetensors_io import load_tensors, save_tensors
from magi_world.loading import Dtype, load_world
from magi_world.training.data import ChunkDataset, split_shards
from magi_world.training.settings import read_settings
from magi_world.world.parts import WorldParts
from magi_world.world.start import choose_start
from magi_world.world.world import World

STARTS = "starts.safetensors"
AFTER = 3  # chunks that the recorded episode still lasts after a start
BATCH = 32  # chunks that are encoded at once


@dataclass(eq=False)
class TrainingEnv:
    """What the training needs to know of its environment.

    envs: numbers of commands in, pictures (B, H, W, 3 k) out; knows how long it took.
    pictures: the same without its clock, where it is a dream whose running episodes can be kept;
        None for a simulator, which begins new ones.
    name, fingerprint: of the world; "" for the simulator's fingerprint.
    commands: what its numbers stand for.
    """

    envs: TimedEnvs
    name: str
    fingerprint: str
    commands: tuple[str, ...]
    frame_size: tuple[int, int]
    frames_per_chunk: int
    device: torch.device
    pictures: VectorChunkToImage | None = None

    @property
    def worlds(self) -> MagiWorldVectorEnv:
        """The dream's own environment."""
        assert self.pictures is not None, "a simulator has none"
        return cast(MagiWorldVectorEnv, self.pictures.unwrapped)


class TimedEnvs(VectorWrapper):
    """Knows how many seconds the environments inside it took."""

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


def open_env(config: TrainAgentConfig, folder: Path) -> TrainingEnv:
    """The place that a configuration asks for; recorded starts are kept in the run's folder.

    Raises:
        ValueError, FileNotFoundError, ImportError: it cannot be opened.
    """
    if config.real is not None:
        return simulator_env(config)
    return dream_env(config, open_parts(config, folder))


def dream_env(config: TrainAgentConfig, parts: WorldParts) -> TrainingEnv:
    """B worlds in one batch; rewards and ends are what the world's heads predict.

    Args:
        parts: of the world, with the starts that it is to have.

    Raises:
        ValueError: the world has no heads.
    """
    pictures, spec = dream_pictures(config, parts), parts.spec
    return TrainingEnv(
        TimedEnvs(cast(Any, pictures)),
        spec.name,
        spec.fingerprint,
        cast(VectorDiscreteCommands, pictures.env).commands,
        spec.frame_size,
        spec.frames_per_chunk,
        cast(MagiWorldVectorEnv, pictures.unwrapped).world.device,
        pictures,
    )


def dream_pictures(
    config: TrainAgentConfig, parts: WorldParts, autoreset_mode: str = "SAME_STEP"
) -> VectorChunkToImage:
    """The dream as a vector environment: numbers of commands in, pictures out.

    Raises:
        ValueError: the world has no heads.
    """
    world = World(parts, 1, "sdpa", config.noise_scale)
    reward: dict[Reward, float] = {LearnedReward(sample_end=config.sample_end): 1.0}
    if config.uncertainty and parts.heads is not None:
        reward[UncertaintyPenalty(parts.heads)] = config.uncertainty
    worlds = MagiWorldVectorEnv(
        config.num_envs,
        world,
        reward=reward,
        max_chunks=config.horizon,
        autoreset_mode=autoreset_mode,
    )
    numbers = VectorDiscreteCommands(worlds, _known(config, worlds.commands))
    return VectorChunkToImage(numbers, config.frames, config.every)


def simulator_env(config: TrainAgentConfig) -> TrainingEnv:
    """B simulators side by side, for the ceiling: what training in the real thing brings.

    Raises:
        ValueError, FileNotFoundError: as `magi_world.envs.real.make_real_vector`.
        ImportError: the simulator is not installed.
    """
    settings = read_settings(config.real or "")
    commands = _known(config, tuple(settings.commands))
    envs: VectorEnv[Any, Any, Any] = make_real_vector(
        settings, config.num_envs, config.horizon, config.frames, config.every, commands
    )
    return TrainingEnv(
        TimedEnvs(envs),
        settings.name,
        "",
        commands,
        settings.record.frame_size,
        settings.record.frames_per_chunk,
        torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu")),
    )


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
        path = folder / STARTS
        if not path.exists():
            found = recorded_starts(
                parts, config.starts, config.num_starts, config.seed, config.starts_before
            )
            save_tensors(path, {"starts": found})
        parts = with_starts(parts, load_tensors(path)["starts"])
    return parts


def recorded_starts(
    parts: WorldParts, folder: str | Path, count: int, seed: int, before: str | None = None
) -> Tensor:
    """Latents (n, C, t, h, w) of clips of a recording, as long as the world's own starts.

    Args:
        folder: of shards, or of a run of `magi-world train-world`.
        count: n; fewer where the recording has fewer places to begin at.
        seed: decides which.
        before: an event that happens in one of the next `AFTER` chunks of every clip.

    Raises:
        ValueError: no shards, chunks of another size, no episode that is long enough, or no clip
            with the event behind it.
    """
    place = Path(folder)
    if not any(place.glob("shard_*.safetensors")):
        place = place / "data"
    data = ChunkDataset(split_shards(place, 0)[0])
    width = parts.config.sampler.chunk_width
    chunks = 1 if parts.starts is None else parts.starts.shape[2] // width
    spec = parts.spec
    expected, shape = (spec.frames_per_chunk, *spec.frame_size, 3), tuple(data.frames[0].shape[1:])
    if shape != expected:
        raise ValueError(f"{place} has chunks of shape {shape}; {spec.name} needs {expected}")
    rows = data.starts(chunks + AFTER)
    if len(rows) == 0:
        raise ValueError(f"{place} has no episode of {chunks + AFTER} chunks to take a start from")
    if before is not None:
        soon = data.happened(before)[rows[:, None] + chunks + torch.arange(AFTER)].any(1)
        if not soon.any():
            raise ValueError(f"starts_before is {before!r}; it follows no clip of {place}")
        rows = rows[soon]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    rows = rows[order[:count]].sort().values
    # Chunk by chunk, as the world's transformer met them in its training.
    index = (rows[:, None] + torch.arange(chunks)).flatten()
    encoded = [_encoded(parts, data.pixels(some)) for some in index.split(BATCH)]
    latents = torch.cat(encoded).unflatten(0, (len(rows), chunks))
    return latents.transpose(1, 2).flatten(2, 3)


def with_starts(parts: WorldParts, starts: Tensor) -> WorldParts:
    """The same world with more start videos for seeds to pick from, beside its own."""
    # Its own are kept as they are stored, in half precision perhaps.
    own = [] if parts.starts is None else [parts.starts.float()]
    every = torch.cat([*own, starts.to(own[0].device if own else "cpu")])
    spec = replace(parts.spec, num_starts=len(every))
    return replace(parts, starts=every, spec=spec)


@torch.inference_mode()
def _encoded(parts: WorldParts, frames: Tensor) -> Tensor:
    start = choose_start(parts, [0] * len(frames), video=frames)
    assert start is not None, "a video was given"
    return start.latents.cpu()


def _known(config: TrainAgentConfig, commands: tuple[str, ...]) -> tuple[str, ...]:
    """What the policy may say, out of what the place obeys."""
    wanted = config.commands or commands
    if unknown := [command for command in wanted if command not in commands]:
        raise ValueError(
            f"commands has {unknown[0]!r}; this world obeys {', '.join(map(repr, commands))}"
        )
    return wanted
