"""From trained parts to a world package, and from a package to the start of another run.

Legend: K start videos, C T h w latents of a start.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from magi_world.config import MagiConfig
from magi_world.io.package import read_package, write_package
from magi_world.io.safetensors_io import save_tensors
from magi_world.loading import find_package
from magi_world.model.dit import DiT
from magi_world.model.heads import Heads
from magi_world.model.static_text import StaticTextEncoder
from magi_world.model.vae import VAE
from magi_world.training.codec import CODEC
from magi_world.training.data import LatentDataset
from magi_world.training.dynamics import TRANSFORMER
from magi_world.training.settings import WorldTrainConfig
from magi_world.training.text import TEXT
from magi_world.world.parts import WorldParts
from magi_world.world.spec import Command, WorldSpec
from magi_world.world.start import best_start

AHEAD = 3  # chunks after a start in which its event must come


def pick_starts(
    data: LatentDataset, count: int, chunks: int, seed: int, before: int | None = None
) -> Tensor:
    """Latents (K, C, T, h, w) of at most ``count`` real clips of ``chunks`` chunks.

    One an episode; where there are fewer episodes, clips that do not overlap.

    Args:
        before: column of the recorded events that happens soon after every start, so that there
            is something to do; None takes any clip.

    Raises:
        ValueError: the recording has none.
    """
    generator = torch.Generator().manual_seed(seed)
    # No start is an episode's last moment, if the episodes are long enough for that.
    ahead = next((n for n in range(AHEAD, -1, -1) if len(data.windows(chunks + n)[0])), 0)
    rows, _ = data.windows(chunks + ahead)
    if before is not None and ahead:
        soon = torch.stack([data.data.events[rows + chunks + i, before] for i in range(ahead)])
        rows = rows[(soon > 0).any(0)]
    if len(rows) == 0:
        raise ValueError(
            f"no episode has {chunks} chunks to start from; lower start_chunks, or empty "
            "starts_before"
        )
    order = rows[torch.randperm(len(rows), generator=generator)].tolist()
    seen: set[int] = set()
    chosen: list[int] = []
    for row in order:
        episode = int(data.data.episode[row])
        if episode not in seen and len(chosen) < count:
            seen.add(episode)
            chosen.append(row)
    for row in order:
        if len(chosen) < count and all(abs(row - other) >= chunks for other in chosen):
            chosen.append(row)
    index = torch.tensor(chosen)[:, None] + torch.arange(chunks)
    z = data.latents(torch.zeros(index.numel(), dtype=torch.long), index.flatten())
    return z.unflatten(0, (len(chosen), chunks)).transpose(1, 2).flatten(2, 3)


def world_config(config: WorldTrainConfig) -> MagiConfig:
    """The model's configuration as the package states it."""
    return MagiConfig(
        name=config.name,
        dit=config.dynamics.dit,
        vae=config.codec.vae,
        sampler=config.sampler,
        frame_size=config.record.frame_size,
        fps=config.fps,
        dtype="float32",
    )


def make_package(
    config: WorldTrainConfig,
    dit: DiT,
    vae: VAE,
    text: StaticTextEncoder,
    starts: Tensor,
    heads: Heads | None,
    folder: Path,
    quality: Mapping[str, Any] | None = None,
) -> Path:
    commands = tuple(
        Command(name, c.phrases, c.held_out, c.keys, c.opposite or None, c.chunks)
        for name, c in config.commands.items()
    )
    spec = WorldSpec(
        name=config.name,
        frame_size=config.record.frame_size,
        frames_per_chunk=config.record.frames_per_chunk,
        fps=config.fps,
        commands=commands,
        default_command=config.default_command or None,
        things=config.things,
        best_start=config.best_start,
        description=config.description,
        licence=config.licence,
        quality=dict(quality or {}),
        provenance=dict(config.provenance),
    )
    parts = WorldParts(spec, world_config(config), dit, vae, text, starts, heads)
    parts = replace(parts, spec=replace(spec, best_start=best_start(parts)))
    write_package(folder, parts)
    return folder


def inherit(package: str | Path, config: WorldTrainConfig, folder: Path) -> None:
    """Put the parts of ``package`` where the stages of the run in ``folder`` look for them.

    A run that has checkpoints keeps them: it goes on with what it has.

    Raises:
        ValueError: no such package, or its parts have other sizes than ``config`` asks for.
    """
    if list(folder.glob("*.ckpt")) or (folder / TRANSFORMER).exists():
        return
    source = find_package(package)
    parts = read_package(source)
    for name, theirs, ours in (
        ("codec.vae", parts.config.vae, config.codec.vae),
        ("dynamics.dit", parts.config.dit, config.dynamics.dit),
    ):
        if theirs != ours:
            raise ValueError(f"{name} is {ours}; to start from {source.name} it must be {theirs}")
    shutil.copytree(source / TEXT, folder / TEXT, dirs_exist_ok=True)
    save_tensors(folder / CODEC, parts.vae.state_dict())
    save_tensors(folder / TRANSFORMER, parts.dit.state_dict())
