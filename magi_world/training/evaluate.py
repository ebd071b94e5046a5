"""How good a world is, measured on held-out episodes of the simulator it was trained on.

Legend: B worlds dreamed in one batch, T frames a chunk, H W pixels, A commands.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from magi_world.io.package import read_package, read_record, write_record
from magi_world.model.vae import frames_to_video
from magi_world.training.codec import psnr
from magi_world.training.data import ChunkDataset
from magi_world.training.judge import InverseDynamics, accuracy, watched, watched_rows
from magi_world.training.loop import training_attention
from magi_world.training.rollout import (
    EvaluateConfig,
    begin,
    chunks_in,
    filled,
    history_of,
    possible,
    reconstruction_rows,
    rollouts,
    sampled,
    save_strip,
    situations,
)
from magi_world.world.chunk import decode_latents
from magi_world.world.parts import WorldParts
from magi_world.world.world import World


def decibel(made: Tensor, real: Tensor) -> float:
    """PSNR in dB of uint8 pictures."""
    error = (made.float() - real.float()).square().mean()
    return float(10 * torch.log10(255.0**2 / error.clamp_min(1e-9)))


def sharpness(frames: Tensor) -> float:
    """Mean absolute difference between neighbouring pixels of uint8 (..., H, W, 3)."""
    x = frames.float()
    across = (x[..., :, 1:, :] - x[..., :, :-1, :]).abs().mean()
    down = (x[..., 1:, :, :] - x[..., :-1, :, :]).abs().mean()
    return float(across + down) / 2


def following(
    world: World,
    data: ChunkDataset,
    judge: InverseDynamics,
    phrases: Sequence[Sequence[str]],
    rows: Tensor,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """One dreamed chunk for every command in every situation, each under a phrasing of its own.

    Returns:
        What the classifier saw, and what was asked for, (n * A,) each.
    """
    seen, asked = [], []
    for i, part in enumerate(rows.split(world.num_worlds)):
        begin(world, data, part, seed)
        start = world.snapshot()
        behind = data.pixels(filled(part, world.num_worlds) + history_of(data) - 1)
        for c, wordings in enumerate(phrases):
            world.restore(start)
            first = i * world.num_worlds
            said = [wordings[(first + j) % len(wordings)] for j in range(world.num_worlds)]
            # The last batch may be short: its worlds beyond the part are copies.
            made = world.step(said).decoded.cpu()
            seen.append(judge.predict(watched(made, behind))[: len(part)])
            asked.append(torch.full((len(part),), c))
    return torch.cat(seen), torch.cat(asked)


def balanced(predicted: Tensor, held: Tensor, commands: Sequence[str]) -> dict[str, float]:
    """Accuracy per command, and as "all" the mean over the commands, common or rare."""
    found = accuracy(predicted, held, commands)
    per = [v for k, v in found.items() if k != "all"]
    return {**found, "all": sum(per) / len(per)}


@torch.inference_mode()
def through_codec(parts: WorldParts, frames: Tensor, batch: int = 64) -> Tensor:
    """uint8 chunks (N, T, H, W, 3) encoded and decoded again: the best a dream could look."""
    made = []
    for part in frames.split(batch):
        video = frames_to_video(part.to(next(parts.vae.parameters()).device))
        made.append(decode_latents(parts, parts.vae.scale(parts.vae.encode(video))).cpu())
    return torch.cat(made)


@torch.no_grad()
def drift(judge: InverseDynamics, dream: Tensor, real: Tensor) -> list[float]:
    """Distance of a dream's features to real ones, per quarter, in units of real spread.

    dream (n, length, T, H, W, 3); real (N, .., H, W, 3) as `watched`; 1 is how far real chunks lie
    from their own mean.
    """
    dream = watched(dream[:, 1:].flatten(0, 1), dream[:, :-1].flatten(0, 1)).unflatten(
        0, (len(dream), -1)
    )
    own = judge.look(real)
    mean = own.mean(0)
    spread = (own - mean).square().sum(1).mean().sqrt()
    quarters = dream.chunk(4, dim=1)
    return [
        float((judge.look(q.flatten(0, 1)) - mean).square().sum(1).mean().sqrt() / spread)
        for q in quarters
    ]


def command_following(
    world: World, data: ChunkDataset, judge: InverseDynamics, config: EvaluateConfig
) -> dict[str, Any]:
    """The judge on real chunks, on the same through the autoencoder, and on dreamed ones."""
    spec = world.spec
    names = list(spec.command_names)
    judged = judge.get_buffer("judged").cpu()
    whole = torch.nonzero((data.end == 0) & torch.isin(data.command, judged)).squeeze(1)
    held = data.command[whole]
    base = balanced(judge.predict(watched_rows(data, whole)), held, names)
    made = through_codec(world.parts, data.pixels(whole))
    single = made.shape[1] == 1
    behind = through_codec(world.parts, data.pixels(data.before(whole))) if single else made
    coded = balanced(judge.predict(watched(made, behind)), held, names)
    told: dict[str, Any] = {
        "real": base["all"],
        "real_per_command": base,
        "real_through_codec": coded["all"],
    }
    start = situations(data, config.clips, 1, config.seed + 1)
    told_apart = [spec.commands[i] for i in judged.tolist()]
    trained = [[c.name, *c.phrases] for c in told_apart]
    held_out = [list(c.held_out) for c in told_apart]
    for name, phrases in (("trained", trained), ("held_out", held_out)):
        seen, asked = following(world, data, judge, phrases, start, config.seed)
        asked = judged[asked]
        found = accuracy(seen, asked, names)
        told[name] = found["all"]
        told[f"{name}_per_command"] = found
        told[f"{name}_of_real"] = found["all"] / base["all"]
    return told


def long_dream(
    world: World, data: ChunkDataset, judge: InverseDynamics, config: EvaluateConfig
) -> tuple[dict[str, Any], Tensor]:
    """Figures of a long dream under mixed commands, and its frames (B, length, T, H, W, 3)."""
    spec = world.spec
    names = list(spec.command_names)
    length = chunks_in(config.seconds, spec)
    generator = torch.Generator().manual_seed(config.seed)
    begin(world, data, situations(data, config.worlds, 1, config.seed + 2), config.seed)
    chunks, command = [], torch.zeros(config.worlds, dtype=torch.long)
    for i in range(length):
        new = torch.randint(len(names), (config.worlds,), generator=generator)
        command = torch.where(torch.rand(config.worlds, generator=generator) < 0.4, new, command)
        command = new if i == 0 else command
        chunks.append(world.step([names[c] for c in command.tolist()]).decoded.cpu())
    dream = torch.stack(chunks, 1)
    rows = torch.arange(0, len(data), max(1, len(data) // 256))
    sharp = sharpness(data.pixels(rows))
    told = {
        "seconds": length * spec.frames_per_chunk / spec.fps,
        "sharpness_of_real_per_quarter": [sharpness(q) / sharp for q in dream.chunk(4, dim=1)],
        "feature_distance_per_quarter": drift(judge, dream, watched_rows(data, rows)),
    }
    return told, dream


def ahead(
    data: ChunkDataset, start: Tensor, before: int, dream: Tensor, real: Tensor
) -> dict[str, float]:
    """PSNR in dB of dreamed first chunks (n, T, H, W, 3), and of holding the last real frame."""
    last = data.pixels(start + before - 1)[:, -1:]
    copied = decibel(last.expand_as(real), real)
    made = decibel(dream, real)
    return {"dream_psnr_db": made, "copy_psnr_db": copied, "gain_db": made - copied}


def eventful(data: ChunkDataset, count: int) -> Tensor:
    """At most ``count`` rows in which the first event happens, or any where none ever does: there
    small things must survive the autoencoder."""
    whole = data.end == 0
    happens = data.events[:, :1].any(1) & whole
    rows = torch.nonzero(happens if bool(happens.any()) else whole).squeeze(1)
    return rows[:: max(1, len(rows) // count)][:count]


def evaluate_package(
    folder: Path,
    data: ChunkDataset,
    judge: InverseDynamics,
    config: EvaluateConfig,
    device: torch.device,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Everything that is measured of a package, and the pictures for its page."""
    parts = read_package(folder, device)
    names = list(parts.spec.command_names)
    world = World(parts, config.worlds)
    quality: dict[str, Any] = {}
    rows = torch.arange(0, len(data), max(1, len(data) // 256))
    with training_attention(device):
        quality["reconstruction_psnr_db"] = psnr(parts.vae, data, rows)
    shown = data.pixels(eventful(data, 4))
    rolled = {"reconstruction": torch.stack([through_codec(parts, shown), shown])}
    quality["rollout_psnr_db"] = {}
    before = history_of(data)
    for length in possible(data, config.lengths):
        count = min(config.clips, config.worlds if length > 4 else config.clips)
        start = situations(data, count, length, config.seed)
        dream = rollouts(world, data, names, start, length, config.seed)
        index = start[:, None] + before + torch.arange(length)
        real = data.pixels(index.flatten()).unflatten(0, index.shape)
        quality["rollout_psnr_db"][str(length)] = decibel(dream[:, -1], real[:, -1])
        if length == 1:
            quality["one_chunk_ahead"] = ahead(data, start, before, dream[:, 0], real[:, 0])
        rolled[str(length)] = torch.stack([dream, real])
    quality["command_following"] = command_following(world, data, judge, config)
    quality["long_dream"], rolled["long"] = long_dream(world, data, judge, config)
    return quality, rolled


def draw_strips(rolled: dict[str, Tensor], folder: Path) -> list[Path]:
    """The pictures of `evaluate_package` as PNG files: real above, made below."""
    made, real = rolled["reconstruction"]
    paths = [save_strip(reconstruction_rows(real, made), folder / "reconstruction.png")]
    for length in [n for n in ("16", "64") if n in rolled]:
        dream, truth = rolled[length][:, :3].flatten(2, 3)
        rows = [sampled(v, 12) for pair in zip(truth, dream, strict=True) for v in pair]
        paths.append(save_strip(rows, folder / f"rollout_{length}.png"))
    rows = [sampled(v.flatten(0, 1), 12) for v in rolled["long"][:6]]
    paths.append(save_strip(rows, folder / "long_dream.png"))
    return paths


def store_quality(folder: Path, quality: dict[str, Any]) -> None:
    """Put the figures into the package's world.json, next to what is there."""
    record = read_record(folder)
    record["quality"] = {**record.get("quality", {}), **quality}
    write_record(folder, record)


def as_json(quality: dict[str, Any]) -> str:
    """The figures, rounded, for a page or a log."""
    return json.dumps(
        json.loads(json.dumps(quality), parse_float=lambda x: round(float(x), 4)), indent=1
    )
