"""Muon against AdamW for the autoencoder: the same start, batches and schedule, two optimisers.

    python benchmarks/codec_optimisers.py configs/courtyard.yaml --run runs/courtyard \\
        [--steps 640] [--probes 8] [--adamw-lrs 0.002 0.0005]

Only the matrices of the blocks differ: Muon trains them with the configuration's muon_lr, scaled
to the size of AdamW's updates, AdamW with each of --adamw-lrs (muon_lr where none is given).
Everything else is trained by AdamW with the configuration's adam_lr, as in train-world. One JSON
line: PSNR of the averaged weights and loss on held-out chunks after every eighth of the steps, and
the seconds of training until then. Only the folder's recording is read; nothing is written.
"""

from __future__ import annotations

import argparse
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import torch
from common import report
from torch import Tensor, nn
from tqdm import trange

from magi_world.model.vae import VAE, frames_to_video
from magi_world.training.codec import (
    CodecConfig,
    codec_loss,
    draw_video,
    keep_blind,
    mean_picture,
    psnr,
    start_from_pca,
)
from magi_world.training.data import ChunkDataset, split_shards
from magi_world.training.loop import (
    Averaged,
    Muon,
    parameter_groups,
    step_generator,
    swapped,
    training_attention,
)
from magi_world.training.settings import read_settings

PROBED = 128  # held-out chunks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--run", type=Path, required=True, help="the folder with data/ in it")
    parser.add_argument("--steps", type=int, help="default: the configuration's")
    parser.add_argument("--probes", type=int, default=8, help="how often it is measured")
    parser.add_argument("--adamw-lrs", type=float, nargs="+", metavar="LR")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    settings = read_settings(arguments.config)
    config = settings.codec
    steps = arguments.steps or config.loop.steps
    config = replace(config, loop=replace(config.loop, steps=steps))
    shards = split_shards(arguments.run / "data", settings.record.held_out_shards)
    data, held_out = (ChunkDataset(paths) for paths in shards)
    device = torch.device(arguments.device)
    torch.manual_seed(config.loop.seed)
    start = VAE(config.vae)
    bound = start_from_pca(start, mean_picture(data)[0])
    every = max(1, steps // arguments.probes)
    curves = {}
    rates = arguments.adamw_lrs or [config.loop.muon_lr]
    for name, rate in [("muon", config.loop.muon_lr), *((f"adamw_{lr:g}", lr) for lr in rates)]:
        model = deepcopy(start).to(device)
        keep_blind(model)
        matrices, rest = parameter_groups(model, "blocks")
        optimiser = block_optimiser(name, matrices, rate, config.loop.weight_decay)
        curves[name] = train(name, model, (optimiser, rate), rest, config, data, held_out, every)
    figures = {"world": settings.name, "batch": config.loop.batch, "linear_psnr_db": bound}
    report("codec_optimisers", {**figures, **curves})


def block_optimiser(
    name: str, matrices: list[Tensor], rate: float, decay: float
) -> torch.optim.Optimizer:
    """What trains the matrices of the blocks."""
    if name == "muon":
        return Muon(matrices, rate, decay)
    return torch.optim.AdamW(matrices, lr=rate, betas=(0.9, 0.95), weight_decay=decay, fused=True)


def train(
    name: str,
    model: VAE,
    blocks: tuple[torch.optim.Optimizer, float],
    rest: list[Tensor],
    config: CodecConfig,
    data: ChunkDataset,
    held_out: ChunkDataset,
    every: int,
) -> dict[str, list[float]]:
    """The loop of `magi_world.training.loop` with another optimiser in its place."""
    loop, device = config.loop, next(model.parameters()).device
    adam = torch.optim.AdamW(rest, lr=loop.adam_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    mean = mean_picture(data)[1].to(device)

    def objective(x: Tensor) -> Tensor:
        z, _ = model.encoder(x)
        size = config.size * z.float().square().mean()
        return codec_loss(model.decoder(z).float(), x, mean, config) + size

    compiled = torch.compile(objective) if config.compile else objective
    averaged = Averaged(model, loop.ema)
    curve: dict[str, list[float]] = {"step": [], "psnr_db": [], "loss": [], "seconds": []}
    seconds = 0.0
    for step in trange(loop.steps, desc=name):
        begun = perf_counter()
        for optimiser, rate in (blocks, (adam, loop.adam_lr)):
            for group in optimiser.param_groups:
                group["lr"] = rate * loop.rate(step)
        x = draw_video(data, loop.batch, step_generator(loop.seed, step), device)
        with training_attention(device):
            value = compiled(x)
        value.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), loop.clip)
        for optimiser in (blocks[0], adam):
            if torch.isfinite(norm):
                optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        averaged.update(model, step)
        seconds += perf_counter() - begun
        if (step + 1) % every == 0 or step + 1 == loop.steps:
            with swapped(model, averaged.values), training_attention(device), torch.no_grad():
                rows = torch.arange(0, len(held_out), max(1, len(held_out) // PROBED))
                seen = frames_to_video(held_out.pixels(rows[: loop.batch]).to(device))
                figures = (step + 1, psnr(model, held_out, rows), float(objective(seen)), seconds)
            for column, figure in zip(curve.values(), figures, strict=True):
                column.append(float(f"{figure:.4g}"))
    return curve


if __name__ == "__main__":
    main()
