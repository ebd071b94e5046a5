"""`magi-world completion SHELL`: what makes a shell complete our commands and options."""

from __future__ import annotations

import argparse

from magi_world.demos.commands import options

SHELLS = ("bash", "zsh", "tcsh")


def add(commands: options.Commands) -> None:
    """Declare it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "completion",
        help="print a completion script for a shell",
        description='Print a completion script: eval "$(magi-world completion bash)" in ~/.bashrc; '
        "for zsh write it to a file _magi-world in a folder of $fpath.",
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Do it."""
    try:
        import shtab
    except ImportError as error:
        raise ImportError("completion needs pip install 'magi-world[completion]'") from error
    # The whole command line is declared above this module, which it imports.
    print(shtab.complete(given.top(), shell=given.shell))
    return 0
