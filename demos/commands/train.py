"""`magi-world train-world`, `eval-world` and `export-recording`: worlds of your own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magi_world.demos.commands import options

if TYPE_CHECKING:
    from magi_world.training.settings import WorldTrainConfig

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
    train.add_argument(
        "--check",
        action="store_true",
        help="only check everything, and estimate what it takes; nothing is recorded or trained",
    )
    train.add_argument(
        "--quick",
        nargs="?",
        const=10.0,
        type=_minutes,
        metavar="MINUTES",
        help="a try of all stages in about so many minutes (10); the same folder then goes on",
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
        config, problems = _checked(given, device)
        if given.check:
            return problems
        made = train_world(config, _folder(given), device, not given.no_resume, given.start_from)
        print(f"{made}   (magi-world play {made})")
        if given.quick is not None:
            print("that was a try; the same command without --quick trains it in full")
        return 0

    return _stoppable(train)


def _checked(given: argparse.Namespace, device: str | None) -> tuple[WorldTrainConfig, int]:
    """The configuration, as it is to be trained, and 1 where something is wrong with it.

    Raises:
        ValueError: it cannot be trained.
    """
    import torch

    from magi_world.training.preflight import preflight, shown
    from magi_world.training.progress import read_estimate
    from magi_world.training.rehearse import planned, quick_config, rehearse
    from magi_world.training.settings import read_settings

    folder = _folder(given)
    # A run that goes on was checked when it began, and has its estimate.
    goes_on = read_estimate(folder) and list(folder.glob("*.ckpt"))
    if goes_on and not given.check and given.quick is None:
        return read_settings(given.config), 0
    found = preflight(given.config, folder)
    for finding in found.findings:
        if given.check or not finding.fatal:
            print(shown(finding, found.lines), file=sys.stderr)
    if given.check and any(f.fatal for f in found.findings):
        return found.config, 1
    found.done()
    assert found.played is not None, "without a fatal finding it was played"
    print("a rehearsal of every stage, to see how long each takes ...", file=sys.stderr)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    config, out = found.config, sys.stdout if given.check else sys.stderr
    estimate = rehearse(config, found.played, where)
    if given.quick is not None:
        config = quick_config(config, estimate, given.quick)
        estimate = planned(config, estimate)
    told = f"disk {estimate.disk / 1e9:.1f} GB, memory about {estimate.memory / 1e9:.1f} GB"
    print("\n".join([*estimate.table(), told]), file=out)
    if given.check:
        print(f"{given.config}: it can be trained")
    else:
        estimate.save(folder)
    return config, 0


def _minutes(text: str) -> float:
    """Minutes, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes")
    return value


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
    from magi_world.training.data import split_shards
    from magi_world.training.datasets import ExportConfig, export_recording
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
        from magi_world.training.yaml_lines import Mistakes

        return job()
    except ModuleNotFoundError as error:
        raise ImportError(f"{EXTRA} ({error})") from error
    except Mistakes as error:
        print(error, file=sys.stderr)
        return 2
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
