"""`magi-world serve [WORLD ...]`: live worlds in browsers, and for programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from magi_world.demos.commands import options

if TYPE_CHECKING:
    from magi_world.demos.server.config import ServeConfig
    from magi_world.world.world import World


def add(commands: options.Commands) -> None:
    """Declare it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "serve",
        help="play in a browser, and let programs play",
        description="Serve live worlds to browsers (open the link it prints) and to programs: "
        "magi_world.RemoteWorld and play --remote, OpenEnv on /ws, MCP on /mcp.",
    )
    parser.add_argument("worlds", metavar="WORLD", nargs="*", help="by default the shipped one")
    net = parser.add_argument_group("who may come in")
    net.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines connect")
    net.add_argument("--port", type=_port, default=8765, help="0 takes a free one")
    net.add_argument("--token", help="what visitors must know; auto makes one")
    net.add_argument("--open", action="store_true", help="no token, though others can connect")
    net.add_argument(
        "--allow-origin",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="let pages of another site connect, e.g. https://example.org",
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--batch",
        "--worlds",
        dest="batch",
        type=options.count,
        default=16,
        metavar="N",
        help="worlds computed in one forward (16)",
    )
    limits.add_argument("--visitors", type=options.count, default=16, help="at once (16)")
    limits.add_argument(
        "--chunks", type=float, default=40.0, metavar="N", help="a second for each program (40)"
    )
    limits.add_argument(
        "--idle", type=float, default=600.0, metavar="S", help="seconds until a visitor must go"
    )
    files = parser.add_argument_group("files and pictures")
    files.add_argument(
        "--folder", type=options.file, default=Path("recordings/served"), help="for sessions, slots"
    )
    files.add_argument("--no-sessions", action="store_true", help="record nothing")
    files.add_argument("--picture", choices=("jpeg", "webp"), default="jpeg")
    files.add_argument("--quality", type=options.count, default=90, metavar="Q", help="1 .. 100")
    options.add_world_options(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Do it."""
    from magi_world.demos.server.serve import serve

    names = given.worlds or [options.default_world()]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"world {twice[0]!r} is named twice")
    if options.follows():
        options.open_world(given, names[0])

    def load(name: str, batch: int) -> World:
        return options.open_world(given, name, num_worlds=batch)

    return serve(names, load, _config(given), given.threads, lambda text: print(text, flush=True))


def _config(given: argparse.Namespace) -> ServeConfig:
    from magi_world.demos.server.config import Limits, ServeConfig
    from magi_world.demos.server.serve import new_token

    limits = Limits(visitors=given.visitors, chunks=given.chunks, idle=given.idle)
    return ServeConfig(
        host=given.host,
        port=given.port,
        token=new_token() if given.token == "auto" else given.token,
        open=given.open,
        origins=tuple(given.allow_origin),
        batch=given.batch,
        folder=given.folder,
        sessions=not given.no_sessions,
        picture=given.picture,
        quality=given.quality,
        limits=limits,
    )


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 .. 65535")
    return int(text)
