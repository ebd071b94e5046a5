"""`magi-world dream-dataset`: many dreamed episodes as a dataset."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional

from magi_world.agents.config import DreamConfig
from magi_world.demos.commands.options import (
    DEVICE,
    Count,
    File,
    JsonOption,
    Opt,
    OptCount,
    Output,
    Switch,
    known_device,
    option,
    print_json,
    required,
)

if TYPE_CHECKING:
    from magi_world.agents.dreaming import Pool


@dataclass(frozen=True, kw_only=True)
class DreamDataset(JsonOption):
    """Write many dreamed episodes as a dataset.

    As video and parquet, in LeRobot's layout, or with --minari as a Minari dataset. The same seed
    gives the same episodes, whatever the number of workers; Ctrl-C, and the same command goes on.
    """

    world: Positional[str] = required("a name or the folder of a world")
    output: Annotated[File, Output] = required("folder of the dataset")
    minari: Opt[str] = option("write the Minari dataset of this name instead")
    episodes: Count = option("", DreamConfig.episodes)
    chunks: Count = option("of each episode", DreamConfig.chunks)
    agent: str = option("who plays", DreamConfig.agent)
    hold: Count = option("chunks a random choice stands", DreamConfig.hold)
    seed: int = option("of the first episode", DreamConfig.seed)
    batch: Count = option("episodes dreamed side by side", DreamConfig.batch)
    workers: Count = option("", 1)
    ray: Switch = option("on a Ray cluster, or one started here", False)
    gpus_per_worker: float = option("with --ray", 0.0)
    device: Opt[str] = option(DEVICE)
    steps: OptCount = option("denoising steps a chunk")
    dtype: Opt[Literal["float32", "bfloat16"]] = option("default: the world's own")
    threads: Count = option("a worker", DreamConfig.threads)
    keep_units: Switch = option("keep the lossless episodes", False)

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
