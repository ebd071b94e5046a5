"""The command line: `magi-world COMMAND`. Nothing heavy is imported before it is needed.

What a user got wrong ends with one line on stderr and exit status 2; Ctrl-C with 130; a check that
found a difference or a problem with 1.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from inspect import cleandoc
from typing import Annotated, Any, Generic, Literal, TypeVar, Union

import tyro
from tyro.conf import Positional, UseCounterAction, arg, subcommand

from magi_world.demos.commands import agents, dream, machine, play, record, worlds
from magi_world.demos.commands.options import Command, Switch, option


@dataclass(frozen=True, kw_only=True)
class Completion(Command):
    """Print a completion script for a shell.

    eval "$(magi-world completion bash)" in ~/.bashrc; for zsh write it to a file _magi-world in a
    folder of $fpath; for fish, to ~/.config/fish/completions/magi-world.fish.
    """

    shell: Positional[Literal["bash", "zsh", "fish", "tcsh"]]

    def run(self) -> int:
        try:
            with suppress(SystemExit):
                read(["--tyro-print-completion", self.shell])
        except ImportError as error:
            raise ImportError("this shell needs pip install 'magi-world[completion]'") from error
        return 0


COMMANDS: tuple[type[Command], ...] = (
    play.Play, play.Serve, record.Record, record.Replay, worlds.Worlds, machine.Doctor,
    worlds.NewWorld, worlds.TrainWorld, worlds.EvalWorld, worlds.ExportRecording,
    agents.TrainAgent, agents.EvalAgent, dream.DreamDataset, worlds.Download, worlds.PushWorld,
    machine.Bench, Completion,
)  # fmt: skip

C = TypeVar("C")
CONFIG = (
    tyro.conf.DisallowNone,
    tyro.conf.OmitArgPrefixes,
    tyro.conf.OmitSubcommandPrefixes,
    tyro.conf.PositionalMetavarFromFieldName,
)


@dataclass(frozen=True)
class Line(Generic[C]):
    """A live video world that obeys text, one chunk at a time."""

    command: C | None = option("")
    version: Switch = option("print the version and exit", False)
    traceback: Switch = option("on an error, say where in the code it was raised", False)
    verbose: Annotated[UseCounterAction[int], arg(aliases=["-v"])] = option(
        "say on stderr what is done; twice: what the libraries do, too", 0
    )


def name(kind: type[Command]) -> str:
    """Of a command: TrainWorld is train-world."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower()


def read(typed: Sequence[str]) -> Line[Command]:
    """Raises SystemExit: after --help, or for what cannot be understood."""
    # The list of commands has the first line about each; its own help says everything.
    told = {kind: cleandoc(kind.__doc__ or "") for kind in COMMANDS}
    kinds: Any = Union[  # noqa: UP007
        tuple(
            Annotated[
                kind, subcommand(description=doc if name(kind) in typed else doc.partition("\n")[0])
            ]
            for kind, doc in told.items()
        )
    ]
    return tyro.cli(
        Line[kinds], prog="magi-world", description=Line.__doc__, args=typed, config=CONFIG
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status."""
    try:
        return _run(read(sys.argv[1:] if arguments is None else arguments))
    except BrokenPipeError:
        # Whoever read our output has had enough; what is left in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("\nmagi-world: stopped", file=sys.stderr)
        return 130


def _run(given: Line[Command]) -> int:
    if given.version:
        from magi_world import __version__

        print(f"magi-world {__version__}")
        return 0
    if given.command is None:
        with suppress(SystemExit):
            read(["--help"])
        return 2
    _log(given.verbose)
    if isinstance(given.command, play.Play | play.Serve):  # with a person's other programs beside
        # Before torch is loaded: threads that wait for one another must not keep the cores busy.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return given.command.run()
    except BrokenPipeError:
        raise
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        full = isinstance(error, RuntimeError)
        if given.traceback or (full and not _out_of_memory(error)):
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        if full:
            message = (
                f"out of memory ({str(error).splitlines()[0]}); smaller frames, a smaller batch, "
                "bfloat16 or --device cpu need less"
            )
        print(f"magi-world {name(type(given.command))}: {message}", file=sys.stderr)
        return 2


def _log(verbose: int) -> None:
    """Python's own logging, to stderr: ours with -v, everybody's with -vv."""
    if verbose:
        form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
        logging.basicConfig(format=form, level=logging.INFO if verbose > 1 else logging.WARNING)
        logging.getLogger("magi_world").setLevel(logging.DEBUG if verbose > 1 else logging.INFO)


def _out_of_memory(error: Exception) -> bool:
    """Whether torch said so, on a GPU or on the CPU; it is not imported for that."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


if __name__ == "__main__":
    sys.exit(main())
