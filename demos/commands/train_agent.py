"""`magi-world train-agent`: a policy that learns in the dream."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magi_world.demos.commands import options
from magi_world.demos.simulator_files import no_litter

if TYPE_CHECKING:
    from magi_world.agents.ppo.config import TrainAgentConfig


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


# field of TrainAgentConfig -> type, placeholder, help; what is not typed keeps the field's default
PLACE: dict[str, tuple[Any, str, str]] = {
    "world": (str, "WORLD", "a name or the folder of a world (vizdoom-arena)"),
    "real": (str, "CONFIG", "train in the simulator of this configuration instead"),
    "starts": (str, "DIR", "begin episodes from clips of this recording as well"),
    "num_starts": (options.count, "N", "how many clips (512)"),
    "num_envs": (options.count, "N", "worlds in the batch (16)"),
    "horizon": (options.count, "N", "chunks of an episode (32)"),
    "noise_scale": (float, "S", "of the world's noise; above 1 it takes more chances (1)"),
    "denoise_steps": (options.count, "N", "of the world; default: its own"),
    "dtype": (str, "T", "float32 or bfloat16, of the world; default: its own"),
    "uncertainty": (float, "P", "weight of the penalty for uncertain rewards (0)"),
}
LEARNING: dict[str, tuple[Any, str, str]] = {
    "steps": (options.count, "N", "chunks in all, over all worlds (40960)"),
    "rollout": (options.count, "N", "chunks of each world between two updates (32)"),
    "epochs": (options.count, "N", "passes over them (4)"),
    "batch": (options.count, "N", "chunks in a minibatch (128)"),
    "learning_rate": (float, "R", "at first; falls to a tenth (5e-4)"),
    "gamma": (float, "G", "discount of a chunk (0.95)"),
    "gae": (float, "L", "lambda of the advantage estimates (0.9)"),
    "clip": (float, "C", "of the probability ratio (0.2)"),
    "entropy": (float, "E", "weight of the entropy (0.01)"),
    "value": (float, "V", "weight of the value's loss (0.5)"),
    "max_norm": (float, "M", "of the gradient (0.5)"),
    "commands": (_names, "A,B,...", "what it may say; default: all that the world obeys"),
    "frames": (options.count, "N", "frames that the policy sees (2)"),
    "every": (options.count, "N", "how far apart they are (4)"),
    "features": (options.count, "N", "width of its last layer (256)"),
    "seed": (int, "N", "of everything (0)"),
    "checkpoints": (options.count, "N", "policies kept on the way (8)"),
    "save_seconds": (float, "S", "lost at most when the process is killed (120)"),
}
ENGINE: dict[str, tuple[Any, str, str]] = {
    "engine": (str, "E", "sb3, or rllib: Ray's, over many processes and machines (sb3)"),
    "env_runners": (options.count, "N", "rllib: processes with --num-envs worlds each (none)"),
    "gpus_per_runner": (float, "X", "rllib: a card, or a share of one, for each (0)"),
}


def add(commands: options.Commands) -> None:
    """Declare it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "train-agent",
        help="train a policy in a world",
        description="Train a policy with PPO inside a world, with the rewards and ends that the "
        "world's heads predict. Ctrl-C saves everything; the same command goes on from there, and "
        "for a folder that exists, what is not typed is as it was.",
    )
    parser.add_argument(
        "--run",
        metavar="DIR",
        dest="folder",
        type=options.file,
        help="default: runs/agent-WORLD, or runs/agent-CONFIG-real",
    )
    for title, table in (("where", PLACE), ("learning", LEARNING), ("engine", ENGINE)):
        group = parser.add_argument_group(title)
        for name, (kind, metavar, told) in table.items():
            flag = "--" + name.replace("_", "-")
            group.add_argument(flag, dest=name, type=kind, metavar=metavar, help=told)
    parser.add_argument(
        "--sample-end",
        action=argparse.BooleanOptionalAction,
        help="episodes end with the predicted probability, or, with --no-, at one half",
    )
    parser.add_argument("--device", help="cpu, cuda, ...; default: the GPU if there is one")
    parser.add_argument("--threads", type=options.count, metavar="N", help="of the CPU")
    parser.add_argument(
        "--judged",
        metavar="FILE.json",
        type=options.file,
        help="draw the checkpoints' returns against what eval-agent -o FILE.json found",
    )
    parser.add_argument(
        "--dreamt",
        metavar="FILE.json",
        type=options.file,
        help="for that, what eval-agent found in the dream; default: the training's own returns",
    )
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Do it."""
    from magi_world.threads import settle_threads
    from magi_world.training.loop import Stopped

    settle_threads(given.threads)
    options.known_device(given.device)
    config, folder = read_options(given)
    try:
        with no_litter(Path.cwd()):
            _engine(config.engine)(
                config, folder, lambda line: print(line, file=sys.stderr, flush=True)
            )
    except Stopped as error:
        print(error, file=sys.stderr)
        return 130
    drawn = _draw(folder, given.judged, given.dreamt)
    _report(given, folder, drawn)
    return 0


def _engine(name: str) -> Callable[..., Path]:
    if name == "rllib":
        from magi_world.agents.ppo.rllib import train_agent_with_rllib

        return train_agent_with_rllib
    from magi_world.agents.ppo.train import train_agent

    return train_agent


def read_options(given: argparse.Namespace) -> tuple[TrainAgentConfig, Path]:
    """Configuration and folder of the run: what was typed, else what the folder has, else defaults.

    Raises:
        ValueError: an option that cannot be.
    """
    from magi_world.agents.jobs import read_config
    from magi_world.agents.ppo.config import TrainAgentConfig

    names = [f.name for f in fields(TrainAgentConfig)]
    typed = {n: getattr(given, n) for n in names if getattr(given, n) is not None}
    folder: Path = given.folder or _folder(typed)
    stored = read_config(TrainAgentConfig, folder / "config.json")
    before = {} if stored is None else asdict(stored)
    return TrainAgentConfig(**{**before, **typed}), folder


def _folder(typed: dict[str, Any]) -> Path:
    if "real" in typed:
        return Path("runs") / f"agent-{Path(typed['real']).stem}-real"
    return Path("runs") / f"agent-{Path(typed.get('world', 'vizdoom-arena')).name}"


def _draw(folder: Path, judged: Path | None, dreamt: Path | None) -> list[Path]:
    from magi_world.agents.ppo import curves

    drawn = []
    try:
        drawn.append(curves.draw_returns({folder.name: folder}, folder / "curves.png"))
        if judged is not None:
            pairs = curves.compare_checkpoints(folder, judged, dreamt)
            drawn.append(curves.draw_comparison(pairs, folder / "judged.png"))
    except (ImportError, ValueError) as error:
        # Nothing was asked for by name; a run in which no episode ended has nothing to draw.
        if judged is not None:
            raise
        print(f"no curves.png: {error}", file=sys.stderr)
    return drawn


def _report(given: argparse.Namespace, folder: Path, drawn: list[Path]) -> None:
    from magi_world.agents.ppo.policy import read_policy

    record, _ = read_policy(folder)
    found = dict(record.figures)
    rate = record.steps / found["seconds"]
    share = found["world"] / found["seconds"]
    if given.json:
        figures = {"steps_per_s": rate, "world_share": share, **found}
        options.print_json({"run": str(folder), "steps": record.steps, **figures})
        return
    print(f"{record.steps} steps in {found['seconds']:.0f} s: {rate:.1f} steps/s, {share:.0%} of "
          "the time in the world")  # fmt: skip
    if "return" in found:
        print(f"return {found['return']:.3f} over the last {found['episodes']} episodes, "
              f"{found['length']:.1f} chunks each")  # fmt: skip
    print("\n".join(f"  {path}" for path in (folder, *drawn)))
