"""`magi-world replay SESSION`: the same again, compared, or rendered in another way."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from magi_world.demos.commands import options
from magi_world.demos.commands.record import add_output_options, record_config, report

if TYPE_CHECKING:
    from magi_world.session.session import Session
    from magi_world.world.world import World


def add(commands: options.Commands) -> None:
    """Declare it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "replay",
        help="repeat a session, compare it, render it again, or turn it into a script",
        description="Repeat a session file. Without further options it is compared with what it "
        "was (--verify); exit status 1 says that it differs, and the first difference is named.",
    )
    parser.add_argument("session", metavar="SESSION", type=options.file, help="a .jsonl file")
    parser.add_argument("--verify", action="store_true", help="compare, and say where it differs")
    add_output_options(parser, required=False)
    parser.add_argument("--script", metavar="FILE", type=options.file, help="write it as a script")
    parser.add_argument("--minari", metavar="NAME", help="export it as a Minari dataset")
    parser.add_argument("--world", help="instead of the session's")
    options.add_world_options(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Do it."""
    from magi_world.session.session import read_session

    session = read_session(given.session)
    if session.truncated and not given.json:
        print(f"{given.session}: the last line was cut off, and is left out")
    if given.script is not None:
        return _write_script(given, session)
    if given.output:
        from magi_world.demos.record import check_outputs

        check_outputs(given.output, record_config(given), session)
    wants_other = bool(given.output or given.minari)
    if given.verify or not wants_other:
        status = _verify(given, session)
        if status or not wants_other:
            return status
    world = _world(given, session)
    if given.minari:
        from magi_world.demos.export import export_minari

        dataset = export_minari(session, world, given.minari)
        print(f"{given.minari}: {dataset.total_episodes} episodes, {dataset.total_steps} chunks")
    if given.output:
        from magi_world.demos.record import record

        return report(given, record(session, world, given.output, record_config(given)))
    return 0


def _verify(given: argparse.Namespace, session: Session) -> int:
    from magi_world.demos.replay import verdict_text, verify_session

    world = _world(given, session)
    verdict = verify_session(session, world, quiet=given.quiet or given.json)
    if given.json:
        options.print_json({"same": verdict.difference is None, **asdict(verdict)})
    else:
        print(verdict_text(verdict))
    return 0 if verdict.difference is None else 1


def _world(given: argparse.Namespace, session: Session) -> World:
    """The world of the session, as it was where nothing else was typed."""
    head = session.header
    given.dtype = given.dtype or head.dtype
    given.attention = given.attention or head.attention
    if head.device == "cpu":
        given.device = given.device or "cpu"
        given.threads = given.threads or head.threads or None
    return options.open_world(
        given,
        given.world or head.world,
        head.num_steps,
        head.window_size,
        head.frame_size,
        head.noise_scale,
        head.num_worlds,
    )


def _write_script(given: argparse.Namespace, session: Session) -> int:
    from magi_world.demos.session_script import script_text
    from magi_world.io.files import write_text

    if given.script.exists() and not given.overwrite:
        raise FileExistsError(f"{given.script} exists; give --overwrite to replace it")
    text = script_text(session, given.session.name.split(".")[0], given.script.parent)
    write_text(given.script, text)
    print(f"  {given.script}")
    return 0
