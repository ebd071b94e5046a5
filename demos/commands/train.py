"""`magi-world train-world` and `eval-world`: worlds of your own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from magi_world.demos.commands import options

EXTRA = 'training needs more packages: pip install "magi-world[train]"'


def add(commands: options.Commands) -> None:
    """Declare both."""
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
    for parser, run in ((train, run_train), (evaluate, run_evaluate)):
        parser.add_argument("config", metavar="CONFIG", type=options.file, help="a YAML file")
        parser.add_argument(
            "--run", metavar="DIR", dest="folder", type=options.file, help="default: runs/CONFIG"
        )
        parser.add_argument("--device", help="cpu, cuda, ...; default: the GPU if there is one")
        parser.set_defaults(run=run)
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
