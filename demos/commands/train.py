"""`magi-world train-world`, `eval-world` and `export-recording`: worlds of your own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from magi_world.demos.commands import options

EXTRA = 'training needs more packages: pip install "magi-world[train]"'


def add(commands: options.Commands) -> None:
    """Declare them."""
    train: argparse.ArgumentParser = commands.add_parser(
        "train-world",
        help="train a world from a simulator",
        description="Record a simulator and train a world, as a configuration says. Ctrl-C saves "
        "everything; the same command goes on from there.",
    )
    evaluate: argparse.ArgumentParser = commands.add_parser(
        "eval-world",
        help="measure a trained world",
        description="Pack the newest checkpoints of a run, finished or not, and measure them.",
    )
    export: argparse.ArgumentParser = commands.add_parser(
        "export-recording",
        help="turn the recording of a world's training into a Minari dataset",
        description="Write the simulator's episodes, as train-world recorded them, as a Minari "
        "dataset for offline learning. Nothing is recorded or trained.",
    )
    for parser, run in ((train, run_train), (evaluate, run_evaluate), (export, run_export)):
        parser.add_argument("config", metavar="CONFIG", type=options.file, help="a YAML file")
        parser.add_argument(
            "--run", metavar="DIR", dest="folder", type=options.file, help="default: runs/CONFIG"
        )
        parser.set_defaults(run=run)
    for parser in (train, evaluate):
        parser.add_argument("--device", help="cpu, cuda, ...; default: the GPU if there is one")
    train.add_argument(
        "--no-resume", action="store_true", help="refuse a folder that has checkpoints in it"
    )
    train.add_argument(
        "--from",
        metavar="WORLD",
        dest="start_from",
        help="begin with the weights of this world (a name or a folder) instead of from nothing",
    )
    options.add_json(evaluate)
    export.add_argument("--minari", metavar="NAME", required=True, help="e.g. arena/recorded-v0")
    export.add_argument(
        "--observation",
        choices=("chunk", "frame"),
        default="chunk",
        help="all frames of a chunk (default), or its last one",
    )
    export.add_argument(
        "--action",
        choices=("text", "discrete"),
        default="text",
        help="the command (default), or its place in the list of commands",
    )
    export.add_argument(
        "--part",
        choices=("all", "train", "held-out"),
        default="all",
        help="all chunks (default), those that are trained on, or those that are not",
    )


def run_train(given: argparse.Namespace) -> int:
    """Do it."""

    def train() -> int:
        from magi_world.training.train import train_world

        device = options.known_device(given.device)
        made = train_world(
            given.config, _folder(given), device, not given.no_resume, given.start_from
        )
        print(f"{made}   (magi-world play {made})")
        return 0

    return _stoppable(train)


def run_evaluate(given: argparse.Namespace) -> int:
    """Do it."""

    def evaluate() -> int:
        from magi_world.training.train import evaluate_world

        device = options.known_device(given.device)
        figures = evaluate_world(given.config, _folder(given), device)
        if given.json:
            options.print_json(figures)
        else:
            print("\n".join(_lines(figures)))
        return 0

    return _stoppable(evaluate)


def run_export(given: argparse.Namespace) -> int:
    """Do it."""
    from magi_world.training.dataset import split_shards
    from magi_world.training.export import ExportConfig, export_recording
    from magi_world.training.settings import read_settings

    record = read_settings(given.config).record
    train, held_out = split_shards(_folder(given) / "data", record.held_out_shards)
    paths = {"all": [*train, *held_out], "train": train, "held-out": held_out}[given.part]
    config = ExportConfig(given.observation, given.action)
    made = export_recording(paths, given.minari, record, config)
    print(f"{given.minari}: {made.total_episodes} episodes, {made.total_steps} chunks")
    return 0


def _stoppable(job: Callable[[], int]) -> int:
    try:
        from magi_world.training.loop import Stopped

        return job()
    except ModuleNotFoundError as error:
        raise ImportError(f"{EXTRA} ({error})") from error
    except Stopped as error:
        message = str(error) or "stopped; the same command goes on from here"
        print(message, file=sys.stderr)
        return 130


def _folder(given: argparse.Namespace) -> Path:
    return given.folder or Path("runs") / given.config.stem


def _lines(figures: dict[str, Any], indent: str = "") -> list[str]:
    """Nested figures for people."""
    told = []
    for name, value in figures.items():
        if isinstance(value, dict):
            told += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        else:
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            told.append(f"{indent}{name}: {shown}")
    return told
