"""`magi-world download` and `magi-world push-world`: worlds and weights of the Hugging Face hub."""

from __future__ import annotations

import argparse
import sys

from magi_world.demos.commands import options


def add(commands: options.Commands) -> None:
    """Declare them."""
    download: argparse.ArgumentParser = commands.add_parser(
        "download",
        help="fetch a world or the released weights from the Hugging Face hub",
        description="OWNER/NAME installs a world, which can then be loaded by its name. The "
        "name of a released model (magi-1-4.5b-distill, ...) fetches its weights into --to, tens "
        "of gigabytes; the same command goes on with what was stopped.",
    )
    download.add_argument("what", metavar="WORLD", help="OWNER/NAME[@REVISION], or magi-1-...")
    download.add_argument(
        "--to", type=options.file, metavar="DIR", help="default: ~/.magi-world/worlds"
    )
    download.add_argument("--overwrite", action="store_true", help="replace a world of that name")
    download.set_defaults(run=run_download)
    push: argparse.ArgumentParser = commands.add_parser(
        "push-world",
        help="put a world on the Hugging Face hub",
        description="Put a world package on the hub, with a page about it made from its "
        "world.json. Log in with `hf auth login` first.",
    )
    push.add_argument("world", metavar="WORLD", help="a name or a folder")
    push.add_argument("address", metavar="OWNER/NAME")
    push.add_argument("--private", action="store_true", help="a repository that is made is private")
    push.add_argument("-m", "--message", help="of the commit")
    push.set_defaults(run=run_push)


def run_download(given: argparse.Namespace) -> int:
    """Do it."""
    from magi_world.io import hub
    from magi_world.io.released import PRESETS
    from magi_world.loading import INSTALLED

    if given.what in PRESETS:
        if given.to is None:
            raise ValueError(f"{given.what} needs --to DIR, where there is room for its weights")
        folder = hub.download_released(given.what, given.to)
        print(f"{folder}   (magi-world doctor --weights {folder})")
        print("special_tokens.npz comes with the code of MAGI-1; doctor says what is missing")
        return 0
    folder = hub.download_world(given.what, given.to or INSTALLED.expanduser(), given.overwrite)
    named = folder.name if given.to is None else folder
    print(f"{folder}   (magi-world play {named})")
    return 0


def run_push(given: argparse.Namespace) -> int:
    """Do it."""
    from magi_world.io import hub
    from magi_world.loading import find_package

    folder = find_package(given.world)
    print(hub.push_world(folder, given.address, given.private, given.message))
    print(f"magi-world download {given.address}", file=sys.stderr)
    return 0
