"""From a simulator to a world package, stage by stage; every stage resumes where it was stopped.

    record -> text -> codec -> dynamics -> distill -> decoder -> heads -> package -> evaluate

All of a run lies in one folder: the recording in ``data/``, ``STAGE.ckpt`` and ``STAGE.jsonl`` of
the trained stages, the package in ``world/``. Removing a stage's checkpoint trains it again.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from magi_world.io.package import read_package
from magi_world.loading import world_folders
from magi_world.model.dit import DiT
from magi_world.model.static_text import StaticTextEncoder
from magi_world.model.vae import VAE
from magi_world.simulator import load_object
from magi_world.training.assemble import inherit, make_package, pick_starts
from magi_world.training.codec import CODEC, train_codec
from magi_world.training.data import LatentDataset
from magi_world.training.decoder import train_decoder
from magi_world.training.distill import train_distill
from magi_world.training.dynamics import foreseen, train_dynamics
from magi_world.training.evaluate import as_json, draw_strips, evaluate_package, store_quality
from magi_world.training.heads import fit_heads, labels, measure_dreamed_heads, measure_heads
from magi_world.training.judge import obedience, train_classifier
from magi_world.training.phrases import PhraseTable
from magi_world.training.report import Watcher, dream, newest_transformer
from magi_world.training.run import Run, alone, go_on, open_run
from magi_world.training.settings import WorldTrainConfig
from magi_world.training.text import TEXT, existing_table, make_text_encoder
from magi_world.world.world import World


def train_world(
    config: str | Path | WorldTrainConfig,
    run_dir: str | Path,
    device: str | torch.device | None = None,
    resume: bool = True,
    start_from: str | Path | None = None,
) -> Path:
    """Train everything that ``config`` describes and write the package.

    Args:
        config: a YAML file (`magi_world.training.settings`), or what was read from one.
        run_dir: folder of the run.
        device: None is the GPU where there is one, else the CPU.
        resume: go on with what is in ``run_dir``; False refuses a folder with checkpoints in it.
        start_from: a world package, by name or folder, whose text table, autoencoder and
            transformer the run starts with; without effect on a run that has checkpoints.

    Returns:
        The package's folder, ``run_dir/world``.

    Raises:
        ValueError: a wrong configuration, or ``resume`` is False and there is something to
            resume, or ``start_from`` is no world or has other sizes than ``config``.
        FileNotFoundError: no such configuration.
        BlockingIOError: another process trains in ``run_dir``.
        magi_world.training.loop.Stopped: asked to stop by SIGINT or SIGTERM; everything is saved.
    """
    if not resume and list(Path(run_dir).glob("*.ckpt")):
        raise ValueError(f"{run_dir} holds checkpoints; use resume=True or another run_dir")
    with alone(run_dir):
        run = open_run(config, run_dir, device)
        if start_from is not None:
            inherit(start_from, run.config, run.folder)
        for stage in go_on(run.config, run.folder):
            print(f"{stage} goes on; what was trained behind it is trained anew", file=sys.stderr)
        text = text_encoder(run)
        with Watcher(run) as watcher:
            _stages(run, text, watcher)
    return run.world


def _stages(run: Run, text: StaticTextEncoder, watcher: Watcher) -> None:
    phrases = PhraseTable(text, run.config.commands)
    vae = train_codec(run.config.codec, run.data, run.held_out, run.folder, run.device)
    names = list(run.config.commands)
    latents = LatentDataset(vae, run.data, names)
    seen = LatentDataset(vae, run.held_out, names)
    dit = train_dynamics(run.config.dynamics, latents, seen, phrases, run.folder, run.device)
    dit = train_distill(
        run.config.distill, run.config.dynamics, dit, latents, phrases, run.folder, run.device
    )
    watcher.packed()
    finish(run, text, vae, dit, latents, seen)
    dream(run)


def text_encoder(run: Run) -> StaticTextEncoder:
    """Make the text encoder, once."""
    folder = run.folder / TEXT
    if not (folder / "features.safetensors").exists():
        commands = run.config.commands.items()
        said = [p for name, c in commands for p in (name, *c.phrases, *c.held_out)]
        there = existing_table(run.config.text, said, world_folders().values())
        if there is None:
            make_text_encoder(run.config.text, said, folder)
        else:
            there.save(folder)
    return StaticTextEncoder(folder)


def finish(
    run: Run,
    text: StaticTextEncoder,
    vae: VAE,
    dit: DiT,
    latents: LatentDataset,
    seen: LatentDataset,
) -> None:
    """Decoder, heads, package, figures: everything after the transformer."""
    config = run.config
    phrases = PhraseTable(text, config.commands)
    foresee = partial(foreseen, dit, config.dynamics, latents, phrases, config.sampler.num_steps)
    vae = train_decoder(config.codec, vae, run.data, run.held_out, run.folder, run.device, foresee)
    events = list(config.record.events)
    heads = None
    quality: dict[str, Any] = {}
    if config.heads.predicted:
        heads = fit_heads(config.heads, latents, events, run.folder, run.device)
        quality["heads"] = measure_heads(heads, config.heads, seen, events)
    before = events.index(config.starts_before) if config.starts_before else None
    starts = pick_starts(latents, config.starts, config.start_chunks, config.seed, before)
    make_package(config, dit, vae, text, starts, heads, run.world, quality)
    evaluate(run)


def evaluate(run: Run) -> dict[str, Any]:
    """Measure the package of a run and store the figures in it."""
    judge = train_classifier(
        run.config.classifier,
        run.data,
        list(run.config.commands),
        run.folder,
        run.device,
        run.config.record.moves,
    )
    quality, rolled = evaluate_package(
        run.world, run.held_out, judge, run.config.evaluate, run.device
    )
    world = World(read_package(run.world, run.device), run.config.evaluate.worlds)
    measured = run.config.evaluate
    quality["obedience"] = obedience(world, run.held_out, run.config.record, measured)
    if measured.figures:
        quality["figures"] = load_object(measured.figures)(world, run.held_out, measured)
    if run.config.heads.predicted:
        truth = labels(run.config.heads, run.held_out, list(run.config.record.events))
        quality["heads_on_dreams"] = measure_dreamed_heads(world, run.held_out, truth)
    store_quality(run.world, quality)
    draw_strips(rolled, run.folder / "strips")
    (run.folder / "quality.json").write_text(as_json(quality) + "\n")
    return quality


def evaluate_world(
    config: str | Path, run_dir: str | Path, device: str | torch.device | None = None
) -> dict[str, Any]:
    """Pack the newest checkpoints of a run, finished or not, and measure them.

    Returns:
        The figures, which are also in ``run_dir/world/world.json`` and ``run_dir/quality.json``.

    Raises:
        ValueError: there is no checkpoint of the transformer yet.
    """
    run = open_run(config, run_dir, device)
    newest, _ = newest_transformer(run)
    if not any((run.folder / name).exists() for name in ("codec.ckpt", CODEC)):
        raise ValueError(f"{run.folder} has no codec.ckpt; train first")
    vae = train_codec(run.config.codec, run.data, run.held_out, run.folder, run.device)
    names = list(run.config.commands)
    latents, seen = (LatentDataset(vae, d, names) for d in (run.data, run.held_out))
    finish(run, text_encoder(run), vae, newest, latents, seen)
    return json.loads((run.folder / "quality.json").read_text())
