"""`magi-world dream-dataset`: many dreamed episodes as a dataset."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from magi_world.demos.commands.options import (
    DEVICE,
    JsonOption,
    argument,
    choice,
    count,
    file,
    known_device,
    option,
    print_json,
)

if TYPE_CHECKING:
    from magi_world.agents.dreaming import DreamConfig, Pool

_PLACE, _EPISODES = "where", "episodes"


@dataclass(frozen=True, kw_only=True)
class DreamDataset(JsonOption):
    command = "dream-dataset"
    told = "write many dreamed episodes as a dataset"
    about = (
        "Dream episodes of a world and write them as video and parquet, in LeRobot's layout, or "
        "with --minari as a Minari dataset. The same seed gives the same episodes, whatever the "
        "number of workers; Ctrl-C, and the same command goes on."
    )

    world: str = argument("WORLD", "a name or the folder of a world")
    output: Path = option(
        "the dataset", None, file, "DIR", "-o", "--output", more={"required": True}
    )
    minari: str | None = option("write this Minari dataset instead", metavar="NAME")
    episodes: int = option("", 16, count, "N", group=_EPISODES)
    chunks: int = option("of each", 32, count, "N", group=_EPISODES)
    agent: str = option("who plays", "random", group=_EPISODES)
    hold: int = option("chunks a random choice stands", 2, count, "N", group=_EPISODES)
    seed: int = option("of the first episode", 0, int, "N", group=_EPISODES)
    batch: int = option("dreamed side by side", 4, count, "N", group=_EPISODES)
    workers: int = option("", 1, count, "N", group=_PLACE)
    ray: bool = option("on a Ray cluster, or one started here", False, group=_PLACE)
    gpus_per_worker: float = option("with --ray", 0.0, float, "X", group=_PLACE)
    device: str | None = option(DEVICE, group=_PLACE)
    steps: int | None = option("denoising steps a chunk", None, count, "N", group=_PLACE)
    dtype: str | None = choice(
        "default: the world's own", None, "float32", "bfloat16", group=_PLACE
    )
    threads: int = option("a worker", 1, count, "N", group=_PLACE)
    keep_units: bool = option("keep the lossless episodes", False)

    def run(self) -> int:
        from magi_world.agents import dream_files
        from magi_world.agents.dreaming import dream, drop_units, read_units, world_spec
        from magi_world.io.offline import check_name

        config = self._config()
        folder = self.output.absolute()
        if self.minari is not None:
            check_name(self.minari)
        else:
            dream_files.check_parquet()
            if (folder / "meta").exists():
                raise FileExistsError(f"{folder} holds a dataset already; name another folder")
        spec = world_spec(self.world)
        episodes = read_units(config, dream(config, folder, self._pool(), _told))
        if self.minari is not None:
            dream_files.write_minari(self.minari, config, spec, episodes)
        else:
            dream_files.write_lerobot(folder, config, spec, episodes)
        if not self.keep_units:
            drop_units(folder)
        made = {"dataset": self.minari or str(folder), "episodes": config.episodes}
        if self.json:
            print_json(made)
        else:
            print(f"{config.episodes} episodes in {made['dataset']}")
        return 0

    def _config(self) -> DreamConfig:
        from magi_world.agents.dreaming import DreamConfig

        device = known_device(self.device)
        more = {"num_steps": self.steps, "device": device}
        return DreamConfig(**self.shared(DreamConfig) | more)

    def _pool(self) -> Pool:
        if self.ray:
            from magi_world.agents.cluster import ray_pool

            return ray_pool(self.workers, self.gpus_per_worker)
        from magi_world.agents.dreaming import local_pool

        return local_pool(self.workers)


def _told(done: int, total: int) -> None:
    print(f"{done} of {total} units", file=sys.stderr, flush=True)
