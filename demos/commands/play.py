"""`magi-world play [WORLD]`: a window on a live world."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from magi_world.demos.commands import options
from magi_world.demos.commands.record import find_script

if TYPE_CHECKING:
    from magi_world.agents.basic import Agent
    from magi_world.demos.play import PlayConfig
    from magi_world.world.world import World

BEST = object()  # no seed was typed: the best start, with seed 0


def add(commands: options.Commands) -> None:
    """Declare it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "play",
        help="open a window on a live world",
        description="Open a window on a live world. F1 in the window lists its keys.",
    )
    parser.add_argument("world", metavar="WORLD", nargs="?", help="by default the shipped one")
    parser.add_argument(
        "--remote", metavar="URL", help="play a world of magi-world serve, ws://HOST:PORT"
    )
    begin = parser.add_argument_group("the beginning")
    begin.add_argument(
        "--seed", type=_seed, default=BEST, help="a number, or random; by default the best start"
    )
    begin.add_argument("--scene", help="scene prompt; by default the world's own")
    begin.add_argument("--image", type=options.file, metavar="FILE", help="picture to start from")
    begin.add_argument("--start", type=_start, help="number of a start video, text, or best")
    begin.add_argument("--script", help="a script that is in charge at first")
    begin.add_argument(
        "--agent",
        metavar="MODULE:NAME",
        action="append",
        default=[],
        help="an agent, or a function of (observation, info), that can be in charge",
    )
    window = parser.add_argument_group("window and files")
    window.add_argument("--record", type=options.file, metavar="FILE", help="film to this MP4")
    window.add_argument("--session", type=options.file, metavar="FILE", help="session file")
    window.add_argument("--no-session", action="store_true", help="write no session file")
    window.add_argument(
        "--folder", type=options.file, default=Path("recordings"), help="for films, slots, ..."
    )
    window.add_argument("--steer", choices=("now", "queue"), default="now")
    window.add_argument("--scale", type=options.count, metavar="N", help="enlarge N times")
    window.add_argument("--hud", action="store_true", help="figures at first, as with the key H")
    window.add_argument("--max-seconds", type=float, metavar="S", help="close after so long")
    window.add_argument(
        "--else-record",
        type=options.file,
        metavar="FILE",
        help="without a display, record the tour to this file instead",
    )
    options.add_world_options(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Do it."""
    if options.follows():
        options.open_world(given, given.world or options.default_world())
    if given.else_record is not None and not _display():
        return _record_instead(given)
    from magi_world.demos.play import play

    def load(name: str) -> World:
        return options.open_world(given, name)

    agents = {name: _agent(name) for name in given.agent}
    if given.remote is not None:
        return _play_remote(given, agents)
    return play(given.world, _config(given), agents, load)


def _play_remote(given: argparse.Namespace, agents: dict[str, Agent]) -> int:
    from magi_world.demos.play import play
    from magi_world.remote.world import RemoteWorld

    options.nothing_to_load(given, "--remote")
    # Who answers there, and what is wrong with the address, is told before a window opens.
    first = RemoteWorld(given.remote, world=given.world)
    names = first.served

    def load(name: str) -> World:
        return first if name == first.source else RemoteWorld(given.remote, world=name)

    try:
        return play(first.source, _config(given), agents, load, names)
    finally:
        first.close()


def _config(given: argparse.Namespace) -> PlayConfig:
    from magi_world.demos.play import PlayConfig

    # A seed that was asked for decides the start as well, as it does everywhere else.
    chosen = given.seed is BEST
    start: int | Literal["text", "best"] | None = "best" if chosen else None
    if given.start is not None:
        start = given.start
    return PlayConfig(
        seed=0 if chosen else given.seed,
        scene=given.scene,
        image=given.image,
        start=start,
        threads=given.threads,
        script=None if given.script is None else find_script(given.script),
        record=given.record,
        session=given.session,
        keep_session=not given.no_session,
        folder=given.folder,
        steer=given.steer,
        scale=given.scale,
        max_seconds=given.max_seconds,
        hud=given.hud,
    )


def _display() -> bool:
    from magi_world.demos.health import display

    return display().verdict == "ok"


def _record_instead(given: argparse.Namespace) -> int:
    """The tour, for a machine without a display."""
    from magi_world.demos.picture import PictureConfig
    from magi_world.demos.record import RecordConfig, record
    from magi_world.demos.script import read_script

    print("there is no display, so this records a tour instead of opening a window")
    script = read_script(find_script("tour"))
    name = given.world or script.world
    world = options.open_world(given, name)
    script, _ = script.fitting(world)
    config = RecordConfig(PictureConfig(captions=True), overwrite=True)
    made = record(script.session(world, name), world, [given.else_record], config)
    print(f"wrote {given.else_record.resolve()}")
    print(f"      {Path(made.session or '').resolve()} (magi-world replay repeats it)")
    if not made.finished:
        print("stopped early; the file plays", file=sys.stderr)
    return 0 if made.finished else 130


def _agent(name: str) -> Agent:
    """`load_agent`, which also finds modules in the current folder."""
    from magi_world.agents import load_agent

    sys.path.insert(0, str(Path.cwd()))
    try:
        return load_agent(name)
    finally:
        sys.path.pop(0)


def _seed(text: str) -> int | None:
    if text == "random":
        return None
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor random")
    return int(text)


def _start(text: str) -> int | str:
    if text in ("text", "best"):
        return text
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor text nor best")
    return int(text)
