"""Which recipe learns most in the same time: arms of the transformer's training, side by side.

    python benchmarks/recipe_grid.py configs/courtyard.yaml --run runs/courtyard --minutes 30 \\
        [--arms today clean patch1] [--clips 64] [--threads 1]

The run's recording, text table and autoencoder are used as they are (train-world makes them). Arms:

    today    velocity, patch 2, text by attention only
    clean    clean prediction, patch 2, the caption in the condition
    patch1   the same with one token a latent cell
    dreams   `clean`, with a history of the model's own dreams in a quarter of the steps

Every arm is trained in --run/grid/ARM for the same number of minutes, in pieces of 50 steps and not
compiled (which takes minutes itself); it can be stopped and taken up again. One JSON line an arm:
minutes, steps, targets, tokens, the error of the clean latent that one step from a noisy, a middle
and a cleaner time gives (weighted as the loss, comparable between arms, 1 = its variance), and PSNR
of the next chunk on held-out clips, beside holding the last frame.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import torch
from common import report
from torch import Tensor

from magi_world.io.package import read_package
from magi_world.model.dit import DiT
from magi_world.training.assemble import make_package, pick_starts
from magi_world.training.codec import train_codec
from magi_world.training.data import LatentDataset
from magi_world.training.dynamics import (
    DynamicsConfig,
    channel_weights,
    draw_batch,
    mix,
    train_dynamics,
)
from magi_world.training.evaluate import ahead
from magi_world.training.forward import velocity
from magi_world.training.phrases import PhraseTable
from magi_world.training.rollout import history_of, rollouts, situations
from magi_world.training.run import Run, open_run
from magi_world.training.train import text_encoder
from magi_world.world.world import World

PIECE = 50  # steps between two looks at the clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30.0, help="of training, each arm")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--clips", type=int, default=64, help="held-out clips dreamed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    run = open_run(arguments.config, arguments.run)
    text = text_encoder(run)
    phrases = PhraseTable(text, run.config.commands)
    vae = train_codec(run.config.codec, run.data, run.held_out, run.folder, run.device)
    names = list(run.config.commands)
    data, held = (LatentDataset(vae, d, names) for d in (run.data, run.held_out))
    for name in arguments.arms:
        config = replace(ARMS[name](run.config.dynamics), compile=False)
        folder = run.folder / "grid" / name
        folder.mkdir(parents=True, exist_ok=True)
        model, steps, seconds = trained(
            config, data, held, phrases, folder, run.device, arguments.minutes * 60
        )
        targets = steps * config.loop.batch * config.copies * config.chunks
        width, *size = data.shape[1:]
        tokens = width * size[0] * size[1] // config.dit.patch**2
        package = folder / "world"
        starts = pick_starts(data, 2, 2, 0)
        settings = replace(run.config, dynamics=config)
        make_package(settings, model, vae, text, starts, None, package)
        report(
            "recipe_grid",
            {
                "world": run.config.name,
                "arm": name,
                "minutes": seconds / 60,
                "steps": steps,
                "targets": targets,
                "tokens": targets * tokens,
                "clean_error": clean_error(model, config, held, phrases, run.device),
                **next_chunk(package, run, arguments.clips),
            },
        )


def today(config: DynamicsConfig) -> DynamicsConfig:
    """As the arena was trained."""
    return replace(
        config, dit=replace(config.dit, prediction="velocity", condition="null", patch=2), until=1.0
    )


def clean(config: DynamicsConfig) -> DynamicsConfig:
    """The recipe at two by two cells a token."""
    return replace(
        config, dit=replace(config.dit, prediction="clean", condition="caption", patch=2)
    )


def patch1(config: DynamicsConfig) -> DynamicsConfig:
    """The recipe at one token a cell."""
    return replace(config, dit=replace(clean(config).dit, patch=1))


def dreams(config: DynamicsConfig) -> DynamicsConfig:
    """The recipe with histories of its own."""
    return replace(clean(config), own_history=0.25)


ARMS = {"today": today, "clean": clean, "patch1": patch1, "dreams": dreams}


def trained(
    config: DynamicsConfig,
    data: LatentDataset,
    held: LatentDataset,
    phrases: PhraseTable,
    folder: Path,
    device: torch.device,
    budget: float,
) -> tuple[DiT, int, float]:
    """Train for ``budget`` seconds, those of earlier calls counted; no decay of the rate."""
    clock = folder / "clock.json"
    spent = json.loads(clock.read_text()) if clock.exists() else {"seconds": 0.0, "steps": 0}
    while True:
        steps = spent["steps"] + (PIECE if spent["seconds"] < budget else 0)
        # The decay must not depend on a length that nobody knows yet.
        loop = replace(config.loop, steps=max(1, steps), decay=1e-9)
        begun = perf_counter()
        model = train_dynamics(replace(config, loop=loop), data, held, phrases, folder, device)
        if steps == spent["steps"]:
            return model, steps, spent["seconds"]
        spent = {"seconds": spent["seconds"] + perf_counter() - begun, "steps": steps}
        clock.write_text(json.dumps(spent))


@torch.no_grad()
def clean_error(
    model: DiT,
    config: DynamicsConfig,
    held: LatentDataset,
    phrases: PhraseTable,
    device: torch.device,
) -> list[float]:
    """Error of x + (1 - t) v against the clean latent, in shares of its variance, by time."""
    weight = channel_weights(config, held).to(device)
    same = replace(config, until=0.9375, copies=3)
    errors = []
    for seed in range(8):
        b = draw_batch(same, held, phrases, torch.Generator().manual_seed(seed), device)
        x = mix(b.target, b.noise, b.t)
        v = velocity(model, b.clean, x, b.t, b.after, b.captions, b.interval, config.history)
        made = x + v * (1 - b.t)[..., None, None, None, None]
        errors.append(shares(made, b.target, weight, same.copies))
    return [round(e, 4) for e in torch.stack(errors).mean(0).tolist()]


def shares(made: Tensor, real: Tensor, weight: Tensor, parts: int) -> Tensor:
    """Weighted squared error over weighted variance of (B, parts * n, C, W, h, w), per part."""
    error = ((made - real).square().mean((3, 4, 5)) * weight).mean(2)
    spread = (real - real.mean((0, 1, 3, 4, 5), keepdim=True)).square() * weight[
        :, None, None, None
    ]
    return error.unflatten(1, (parts, -1)).mean((0, 2)) / spread.mean()


def next_chunk(package: Path, run: Run, clips: int) -> dict[str, float]:
    """PSNR of one dreamed chunk, and of copying."""
    world = World(read_package(package, run.device), 8)
    start = situations(run.held_out, clips, 1, 0)
    dream = rollouts(world, run.held_out, list(run.config.commands), start, 1, 0)
    before = history_of(run.held_out)
    return ahead(run.held_out, start, before, dream[:, 0], run.held_out.pixels(start + before))


if __name__ == "__main__":
    main()
