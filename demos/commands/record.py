"""`magi-world record SCRIPT -o FILE`: a script becomes a film."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from magi_world.demos.commands import options

if TYPE_CHECKING:
    from magi_world.demos.record import RecordConfig, Recording

SCRIPTS = Path(__file__).parents[1] / "scripts"


def add(commands: options.Commands) -> None:
    """Declare it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "record",
        help="render a script to MP4, GIF or a contact sheet",
        description="Render a script. Ctrl-C leaves playable files; --resume goes on from there.",
        epilog=f"scripts that come along: {', '.join(shipped())}",
    )
    parser.add_argument(
        "script", metavar="SCRIPT", help="a YAML file, or the name of a shipped one"
    )
    add_output_options(parser, required=True)
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted recording")
    parser.add_argument("--world", help="instead of the script's")
    options.add_world_options(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def add_output_options(parser: argparse.ArgumentParser, required: bool) -> None:
    """What is written, and how it looks."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=options.file,
        action="append",
        required=required,
        help=".mp4, .gif, or .png for a contact sheet; may be given several times",
    )
    parser.add_argument("--captions", action="store_true", help="burn the commands in")
    parser.add_argument(
        "--upscale", type=options.count, metavar="N", help="repeat every pixel N times both ways"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(given: argparse.Namespace) -> int:
    """Do it."""
    from magi_world.demos.record import check_outputs, record
    from magi_world.demos.script import read_script

    script = read_script(find_script(given.script))
    config = record_config(given, resume=given.resume)
    check_outputs(given.output, config)
    name = given.world or script.world
    world = options.open_world(given, name, script.num_steps, script.window_size, script.frame_size)
    if given.world is not None:
        script, told = script.fitting(world)
        if told:
            print(told, file=sys.stderr)
    return report(given, record(script.session(world, name), world, given.output, config))


def record_config(given: argparse.Namespace, resume: bool = False) -> RecordConfig:
    """Of what was typed.

    Raises:
        ValueError: an upscale out of range.
    """
    from magi_world.demos.picture import PictureConfig
    from magi_world.demos.record import RecordConfig

    return RecordConfig(
        picture=PictureConfig(upscale=given.upscale, captions=given.captions),
        overwrite=given.overwrite,
        resume=resume,
        quiet=given.quiet or given.json,
    )


def report(given: argparse.Namespace, made: Recording) -> int:
    """Say what was made; the exit status."""
    if given.json:
        options.print_json(asdict(made))
    else:
        height, width = made.size
        what = f"{made.video_seconds:.1f} s of video, {height}x{width}, {made.chunks} chunks"
        print(f"{what}, in {made.seconds:.1f} s ({made.frames / made.seconds:.1f} frames/s)")
        for path in (*made.outputs, *filter(None, [made.session])):
            print(f"  {path}")
    if not made.finished:
        print("stopped; the files play, and --resume goes on from here", file=sys.stderr)
    return 0 if made.finished else 130


def find_script(name: str) -> Path:
    """A script by path, or one that is shipped by name.

    Raises:
        FileNotFoundError: neither.
    """
    path = options.file(name)
    if path.is_file():
        return path
    known = SCRIPTS / f"{name}.yaml"
    if known.is_file():
        return known
    raise FileNotFoundError(f"there is no script {name}; shipped ones are {', '.join(shipped())}")


def shipped() -> list[str]:
    """Names of the scripts that come along."""
    return sorted(path.stem for path in SCRIPTS.glob("*.yaml"))
