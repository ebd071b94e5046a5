"""From a simulator to a world package, stage by stage; every stage resumes where it was stopped.

    record -> text -> codec -> dynamics -> distill -> decoder -> heads -> package -> evaluate

All of a run lies in one folder: the recording in ``data/``, ``STAGE.ckpt`` and ``STAGE.jsonl`` of
the trained stages, the package in ``world/``. Removing a stage's checkpoint trains it again.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from magi_world.io.package import read_package
from magi_world.loading import world_folders
from magi_world.model.dit import DiT
from magi_world.model.static_text import StaticTextEncoder
from magi_world.model.vae import VAE
from magi_world.simulator import RecordConfig, load_object
from magi_world.training.assemble import inherit, make_package, pick_starts
from magi_world.training.codec import CODEC, train_codec, train_decoder
from magi_world.training.collect import record
from magi_world.training.data import ChunkDataset, LatentDataset, shard_path, split_shards
from magi_world.training.distill import train_distill
from magi_world.training.dynamics import train_dynamics
from magi_world.training.evaluate import as_json, draw_strips, evaluate_package, store_quality
from magi_world.training.heads import fit_heads, labels, measure_dreamed_heads, measure_heads
from magi_world.training.judge import obedience, train_classifier
from magi_world.training.loop import steps_done
from magi_world.training.phrases import PhraseTable
from magi_world.training.report import Watcher, dream, newest_transformer
from magi_world.training.settings import WorldTrainConfig, read_settings
from magi_world.training.text import TEXT, existing_table, make_text_encoder
from magi_world.world.world import World

# Files that are of no use once a stage has gone on.
BEHIND = {
    "codec": (CODEC, "decoder.ckpt", "distill.ckpt", "heads.ckpt"),
    "dynamics": ("distill.ckpt",),
}


def go_on(config: WorldTrainConfig, folder: Path) -> list[str]:
    """Remove what is behind stages that are to go on; the stages, for a message."""
    wanted = {"codec": config.codec.loop.steps, "dynamics": config.dynamics.loop.steps}
    longer = []
    for stage, steps in wanted.items():
        done = steps_done(folder, stage)
        finished = (folder / BEHIND[stage][0]).exists()
        if 0 < done < steps and finished:
            longer.append(stage)
            for name in BEHIND[stage]:
                (folder / name).unlink(missing_ok=True)
    return longer


def drop_short_shards(config: RecordConfig, folder: Path) -> int:
    """Remove shards of fewer chunks than ``config`` asks for, which a quick try left. How many."""
    from safetensors import safe_open

    dropped = 0
    for index in range(config.shards):
        path = shard_path(folder, index)
        if not path.exists():
            continue
        with safe_open(path, framework="np") as shard:
            chunks = shard.get_slice("command").get_shape()[0]
        if chunks < config.chunks_per_shard:
            path.unlink()
            dropped += 1
    return dropped


@dataclass(frozen=True)
class Run:
    config: WorldTrainConfig
    folder: Path
    device: torch.device
    data: ChunkDataset
    held_out: ChunkDataset

    @property
    def world(self) -> Path:
        return self.folder / "world"


def open_run(
    config: str | Path | WorldTrainConfig,
    run_dir: str | Path,
    device: str | torch.device | None = None,
) -> Run:
    """Record what is missing and open the recording.

    Raises:
        ValueError: a field of the configuration is wrong.
        FileNotFoundError: no such configuration.
    """
    settings = config if isinstance(config, WorldTrainConfig) else read_settings(config)
    folder = Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    drop_short_shards(settings.record, folder / "data")
    record(settings.record, folder / "data")
    train, held_out = split_shards(folder / "data", settings.record.held_out_shards)
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    mirror = settings.record.mirror
    seen, kept = ChunkDataset(train, mirror), ChunkDataset(held_out, mirror)
    check_recording(settings, seen, kept)
    return Run(settings, folder, chosen, seen, kept)


def check_recording(config: WorldTrainConfig, data: ChunkDataset, held_out: ChunkDataset) -> None:
    """Whether what was recorded is enough for every later stage.

    Raises:
        ValueError: what is missing, all of it.
    """
    names, clip = list(config.commands), config.dynamics.chunks
    found = []
    whole = data.command[data.end == 0].unique().tolist()
    if absent := [n for i, n in enumerate(names) if i not in whole and n in config.record.moves]:
        found.append(f"commands {absent} do not occur in it; change the policy or record more")
    for what, part in (("trained on", data), ("held out", held_out)):
        starts = part.starts(clip)
        if not bool((part.end[starts + clip - 1] == 0).any()):
            found.append(
                f"no episode of what is {what} has {clip + 1} chunks, which dynamics.chunks "
                f"({clip}) needs"
            )
        if len(part.starts(3)) == 0:
            found.append(f"no episode of what is {what} has three chunks")
    if found:
        raise ValueError(f"the recording does not do: {'; '.join(found)}")


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
        magi_world.training.loop.Stopped: asked to stop by SIGINT or SIGTERM; everything is saved.
    """
    if not resume and list(Path(run_dir).glob("*.ckpt")):
        raise ValueError(f"{run_dir} holds checkpoints; use resume=True or another run_dir")
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
    vae = train_decoder(config.codec, vae, run.data, run.held_out, run.folder, run.device)
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
