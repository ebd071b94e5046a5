"""`magi-world dream-dataset`: many episodes of a world, dreamed in parallel."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from magi_world.demos.commands import options

if TYPE_CHECKING:
    from magi_world.agents.dreaming import DreamConfig, Pool


def add(commands: options.Commands) -> None:
    """Declare it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "dream-dataset",
        help="write many dreamed episodes as a dataset",
        description="Dream episodes of a world and write them as video and parquet, in LeRobot's "
        "layout, or with --minari as a Minari dataset. The same seed gives the same episodes, "
        "whatever the number of workers; Ctrl-C, and the same command goes on.",
    )
    parser.add_argument("world", metavar="WORLD", help="a name or the folder of a world")
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=options.file, required=True, help="the dataset"
    )
    parser.add_argument("--minari", metavar="NAME", help="write this Minari dataset instead")
    what = parser.add_argument_group("episodes")
    what.add_argument("--episodes", type=options.count, metavar="N", default=16, help="(16)")
    what.add_argument("--chunks", type=options.count, metavar="N", default=32, help="of each (32)")
    what.add_argument("--agent", default="random", help="who plays (random)")
    what.add_argument(
        "--hold", type=options.count, metavar="N", default=2, help="chunks a random choice stands"
    )
    what.add_argument("--seed", type=int, metavar="N", default=0, help="of the first episode (0)")
    what.add_argument(
        "--batch", type=options.count, metavar="N", default=4, help="dreamed side by side (4)"
    )
    where = parser.add_argument_group("where")
    where.add_argument("--workers", type=options.count, metavar="N", default=1, help="(1)")
    where.add_argument("--ray", action="store_true", help="on a Ray cluster, or one started here")
    where.add_argument("--gpus-per-worker", type=float, metavar="X", default=0.0, help="with --ray")
    where.add_argument("--device", help="cpu, cuda, ...; default: the GPU if there is one")
    where.add_argument("--steps", type=options.count, metavar="N", help="denoising steps a chunk")
    where.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: the world's own")
    where.add_argument("--threads", type=options.count, metavar="N", default=1, help="a worker (1)")
    parser.add_argument("--keep-units", action="store_true", help="keep the lossless episodes")
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Do it."""
    from magi_world.agents import dream_files
    from magi_world.agents.dreaming import dream, drop_units, read_units, world_spec
    from magi_world.io.offline import check_name

    config = _config(given)
    folder: Path = given.output.absolute()
    if given.minari is not None:
        check_name(given.minari)
    else:
        dream_files.check_parquet()
        if (folder / "meta").exists():
            raise FileExistsError(f"{folder} holds a dataset already; name another folder")
    spec = world_spec(given.world)
    files = dream(config, folder, _pool(given), _told)
    episodes = read_units(config, files)
    if given.minari is not None:
        dream_files.write_minari(given.minari, config, spec, episodes)
    else:
        dream_files.write_lerobot(folder, config, spec, episodes)
    if not given.keep_units:
        drop_units(folder)
    made = {"dataset": given.minari or str(folder), "episodes": config.episodes}
    if given.json:
        options.print_json(made)
    else:
        print(f"{config.episodes} episodes in {made['dataset']}")
    return 0


def _config(given: argparse.Namespace) -> DreamConfig:
    from magi_world.agents.dreaming import DreamConfig

    return DreamConfig(
        world=given.world,
        episodes=given.episodes,
        chunks=given.chunks,
        batch=given.batch,
        agent=given.agent,
        hold=given.hold,
        seed=given.seed,
        num_steps=given.steps,
        dtype=given.dtype,
        device=options.known_device(given.device),
        threads=given.threads,
    )


def _pool(given: argparse.Namespace) -> Pool:
    if given.ray:
        from magi_world.agents.cluster import ray_pool

        return ray_pool(given.workers, given.gpus_per_worker)
    from magi_world.agents.dreaming import local_pool

    return local_pool(given.workers)


def _told(done: int, total: int) -> None:
    print(f"{done} of {total} units", file=sys.stderr, flush=True)
