"""`magi-world new-world`: from an environment's name to a configuration that can be trained."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

from magi_world.demos.commands import options


def add(commands: options.Commands) -> None:
    """Declare it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "new-world",
        help="write the configuration of a world of your own",
        description="Look at a Gymnasium environment (play it for a few seconds) and write a "
        "commented configuration for train-world: commands for its actions, sizes, speeds.",
    )
    parser.add_argument("env", metavar="ENV_ID", help="as for gymnasium.make, or module:function()")
    parser.add_argument(
        "--module", metavar="M", help="imported first: it registers the environment"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=options.file, help="default: ENV_ID.yaml, here"
    )
    parser.add_argument("--name", help="of the world; default: the file's")
    parser.add_argument("--force", action="store_true", help="overwrite the file if it is there")
    parser.add_argument(
        "--seconds", type=options.count, default=20, metavar="N", help="to play it; default: 20"
    )
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Do it."""
    from magi_world.training.new_world import world_yaml
    from magi_world.training.propose import look
    from magi_world.training.settings import importable, read_settings

    path: Path = given.output or Path(f"{slug(given.env)}.yaml")
    if path.exists() and not given.force:
        raise ValueError(f"{path} is there already; --force overwrites it, -o names another file")
    # What stands beside the file may name the environment.
    importable(path.resolve().parent)
    found = look(given.env, given.module, given.seconds)
    text = world_yaml(found, given.name or path.stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
    read_settings(path)
    height, width = found.picture
    small = "x".join(map(str, found.frame_size))
    print(f"{path}: {len(found.actions)} commands ({', '.join(found.actions)})")
    print(
        f"    pictures {height}x{width} -> {small}, {found.frames_per_chunk} frames a chunk, "
        f"{found.fps} frames/s, a step takes {found.step_seconds * 1e3:.1f} ms"
    )
    for note in found.notes:
        print(f"    note: {note}", file=sys.stderr)
    print(f"next: magi-world train-world {path} --check")
    return 0


def slug(env: str) -> str:
    """A file's name for an environment: "minigrid:MiniGrid-Empty-8x8-v0" -> minigrid-empty-8x8."""
    stem = re.split(r"[:/]", env.removesuffix("()"))[-1]
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"-v\d+$", "", stem).lower()).strip("-") or "world"
