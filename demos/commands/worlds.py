"""`magi-world worlds`: what can be loaded by name."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from magi_world.demos.commands import options


def add(commands: options.Commands) -> None:
    """Declare it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "worlds",
        help="list the worlds that are here",
        description="List the worlds that can be loaded by name, and the released models that "
        "need --weights.",
    )
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Do it."""
    from magi_world.io.released import PRESETS
    from magi_world.loading import world_folders

    worlds = [describe(name, folder) for name, folder in world_folders().items()]
    if given.json:
        options.print_json({"worlds": worlds, "released": list(PRESETS)})
        return 0
    for world in worlds:
        print("\n".join(lines(world)))
    if not worlds:
        print("no world is installed")
    print(f"\nwith --weights DIR: {', '.join(PRESETS)}")
    return 0


def describe(name: str, folder: Path) -> dict[str, Any]:
    """What a package says about itself, and what is wrong with it."""
    from magi_world.io.package import check_package, read_record

    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    facts: dict[str, Any] = {"name": name, "folder": str(folder), "bytes": size}
    try:
        record = read_record(folder)
        facts |= {
            "frame_size": record["frame_size"],
            "fps": record["fps"],
            "commands": [command["name"] for command in record["commands"]],
            "description": record.get("description", ""),
            "licence": record.get("licence", ""),
        }
        facts["problems"] = check_package(folder)
    except (ValueError, OSError, KeyError, TypeError) as error:
        facts["problems"] = [str(error)]
    return facts


def lines(world: dict[str, Any]) -> list[str]:
    """The description for people."""
    told = [f"{world['name']}   {world['folder']}, {world['bytes'] / 1e6:.1f} MB"]
    if "commands" in world:
        height, width = world["frame_size"]
        told.append(f"    {height}x{width} at {world['fps']} frames/s. {world['description']}")
        told.append(f"    commands: {', '.join(world['commands'])}")
    told += [f"    PROBLEM: {problem}" for problem in world["problems"]]
    return told
