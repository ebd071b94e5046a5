"""`magi-world bench [WORLD]`: how fast a world runs here."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from magi_world.demos.commands import options


def add(commands: options.Commands) -> None:
    """Declare it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench",
        help="measure how fast a world runs here",
        description="Measure generated frames a second and the delay from a command to its "
        "picture, on this machine.",
    )
    parser.add_argument("world", metavar="WORLD", nargs="?", help="by default the shipped one")
    parser.add_argument("--chunks", type=options.count, default=40, metavar="N")
    parser.add_argument(
        "--num-worlds", type=options.count, default=1, metavar="N", help="worlds in the batch"
    )
    options.add_world_options(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Do it."""
    from tqdm import tqdm

    from magi_world.demos.bench import measure

    name = given.world or options.default_world()
    world = options.open_world(given, name, num_worlds=given.num_worlds)
    bar = tqdm(total=given.chunks, unit="chunk", disable=given.json, file=sys.stderr, leave=False)
    with bar:
        made = measure(world, given.chunks, bar.update)
    if given.json:
        options.print_json(asdict(made))
        return 0
    height, width = made.frame_size
    print(f"{made.world}, {height}x{width}, {made.num_steps} steps, window {made.window_size}")
    print(f"  on {made.device}, {made.threads} threads, {made.num_worlds} at once")
    print(
        f"  generated   {made.generated_fps:.1f} frames/s; {made.shown_fps:g} are shown "
        f"({made.realtime:.2f} x real time for each)"
    )
    print(
        f"  a chunk     {made.chunk_ms_p50:.0f} ms (p95 {made.chunk_ms_p95:.0f}): "
        f"{made.denoise_ms_p50:.0f} to denoise, {made.decode_ms_p50:.0f} to decode"
    )
    print(f"  memory      {made.memory_mib} MiB at most")
    return 0
