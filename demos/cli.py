"""The command line: `magi-world COMMAND`. Nothing heavy is imported before it is needed.

What a user got wrong ends with one line on stderr and exit status 2; Ctrl-C with 130; a check that
found a difference or a problem with 1.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from magi_world.demos.commands import agents, dream, machine, play, record, worlds
from magi_world.demos.commands.options import Command

COMMANDS: tuple[type[Command], ...] = (
    play.Play, play.Serve, record.Record, record.Replay, worlds.Worlds, machine.Doctor,
    worlds.NewWorld, worlds.TrainWorld, worlds.EvalWorld, worlds.ExportRecording,
    agents.TrainAgent, agents.EvalAgent, dream.DreamDataset, worlds.Download, worlds.PushWorld,
    machine.Bench, machine.Completion,
)  # fmt: skip

LIVE = ("play", "serve")  # what shares the machine with a person's other programs


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="magi-world",
        description="A live video world that obeys text, one chunk at a time.",
    )
    top.add_argument("--version", action="store_true", help="print the version and exit")
    top.add_argument(
        "--traceback", action="store_true", help="on an error, say where in the code it was raised"
    )
    top.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="say on stderr what is done; twice: what the libraries do, too",
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for command in COMMANDS:
        command.declare(commands)
    top.set_defaults(top=parser)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status."""
    top = parser()
    given = top.parse_args(arguments)
    if given.version:
        from magi_world import __version__

        print(f"magi-world {__version__}")
        return 0
    if given.command is None:
        top.print_help()
        return 2
    _log(given.verbose)
    if given.command in LIVE:
        # Before torch is loaded: threads that wait for one another must not keep the cores busy.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return int(given.kind.of(given).run())
    except BrokenPipeError:
        # Whoever read our output has had enough; what is left in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("\nmagi-world: stopped", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, MemoryError) as error:
        if given.traceback:
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"magi-world {given.command}: {message}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if given.traceback or not _out_of_memory(error):
            raise
        first = str(error).splitlines()[0]
        print(
            f"magi-world {given.command}: out of memory ({first}); smaller frames, a smaller "
            "batch, bfloat16 or --device cpu need less",
            file=sys.stderr,
        )
        return 2


def _log(verbose: int) -> None:
    """Python's own logging, to stderr: ours with -v, everybody's with -vv."""
    if verbose:
        form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
        logging.basicConfig(format=form, level=logging.INFO if verbose > 1 else logging.WARNING)
        logging.getLogger("magi_world").setLevel(logging.DEBUG if verbose > 1 else logging.INFO)


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether torch said so, on a GPU or on the CPU; it is not imported for that."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


if __name__ == "__main__":
    sys.exit(main())
