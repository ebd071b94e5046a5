"""A run: its configuration, its folder and its recording; taking one up that is to be longer.

A stage that trains further changes what the stages behind it were trained on. Those that only
refine it are trained again; the transformer and the judge go on from what they have.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from magi_world.io.files import only_one
from magi_world.simulator import RecordConfig
from magi_world.training.codec import CODEC
from magi_world.training.collect import record
from magi_world.training.data import ChunkDataset, shard_path, split_shards
from magi_world.training.loop import steps_done
from magi_world.training.settings import WorldTrainConfig, read_settings

# Files that are of no use once a stage has gone on.
BEHIND = {
    "codec": (CODEC, "decoder.ckpt", "distill.ckpt", "heads.ckpt"),
    "dynamics": ("distill.ckpt",),
}


@contextmanager
def alone(run_dir: str | Path) -> Iterator[None]:
    """Inside, no other process trains in the folder of this run.

    Raises:
        BlockingIOError: one does.
    """
    folder = Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with only_one(folder / ".lock", str(folder)):
        yield


def go_on(config: WorldTrainConfig, folder: Path) -> list[str]:
    """Remove what is behind stages that are to go on; the stages, for a message."""
    wanted = {"codec": config.codec.loop.steps, "dynamics": config.dynamics.loop.steps}
    longer = []
    for stage, steps in wanted.items():
        done = steps_done(folder, stage)
        finished = (folder / BEHIND[stage][0]).exists()
        if 0 < done < steps and finished:
            longer.append(stage)
            for name in BEHIND[stage]:
                (folder / name).unlink(missing_ok=True)
    return longer


def drop_short_shards(config: RecordConfig, folder: Path) -> int:
    """Remove shards of fewer chunks than ``config`` asks for, which a quick try left. How many."""
    from safetensors import safe_open

    dropped = 0
    for index in range(config.shards):
        path = shard_path(folder, index)
        if not path.exists():
            continue
        with safe_open(path, framework="np") as shard:
            chunks = shard.get_slice("command").get_shape()[0]
        if chunks < config.chunks_per_shard:
            path.unlink()
            dropped += 1
    return dropped


@dataclass(frozen=True)
class Run:
    """What every stage after the recording needs."""

    config: WorldTrainConfig
    folder: Path
    device: torch.device
    data: ChunkDataset
    held_out: ChunkDataset

    @property
    def world(self) -> Path:
        """Where the package is written."""
        return self.folder / "world"


def open_run(
    config: str | Path | WorldTrainConfig,
    run_dir: str | Path,
    device: str | torch.device | None = None,
) -> Run:
    """Record what is missing and open the recording.

    Raises:
        ValueError: a field of the configuration is wrong.
        FileNotFoundError: no such configuration.
    """
    settings = config if isinstance(config, WorldTrainConfig) else read_settings(config)
    folder = Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    drop_short_shards(settings.record, folder / "data")
    record(settings.record, folder / "data")
    train, held_out = split_shards(folder / "data", settings.record.held_out_shards)
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    mirror = settings.record.mirror
    seen, kept = ChunkDataset(train, mirror), ChunkDataset(held_out, mirror)
    check_recording(settings, seen, kept)
    return Run(settings, folder, chosen, seen, kept)


def check_recording(config: WorldTrainConfig, data: ChunkDataset, held_out: ChunkDataset) -> None:
    """Whether what was recorded is enough for every later stage.

    Raises:
        ValueError: what is missing, all of it.
    """
    names, clip = list(config.commands), config.dynamics.chunks
    found = []
    whole = data.command[data.end == 0].unique().tolist()
    if absent := [n for i, n in enumerate(names) if i not in whole and n in config.record.moves]:
        found.append(f"commands {absent} do not occur in it; change the policy or record more")
    for what, part in (("trained on", data), ("held out", held_out)):
        starts = part.starts(clip)
        if not bool((part.end[starts + clip - 1] == 0).any()):
            found.append(
                f"no episode of what is {what} has {clip + 1} chunks, which dynamics.chunks "
                f"({clip}) needs"
            )
        if len(part.starts(3)) == 0:
            found.append(f"no episode of what is {what} has three chunks")
    if found:
        raise ValueError(f"the recording does not do: {'; '.join(found)}")
