"""Going on with a run whose stages are to be longer than they were: after a quick try, or when
steps were raised.

A stage that trains further changes what the stages behind it were trained on. Those that only
refine it are trained again; the transformer and the judge go on from what they have.
"""

from __future__ import annotations

from pathlib import Path

import torch

from magi_world.training.files import CODEC
from magi_world.training.record import RecordConfig, shard_path
from magi_world.training.settings import WorldTrainConfig

# Files that are of no use once a stage has gone on.
BEHIND = {
    "codec": (CODEC, "decoder.ckpt", "distill.ckpt", "heads.ckpt"),
    "dynamics": ("distill.ckpt",),
}


def steps_done(folder: Path, stage: str) -> int:
    """Steps of a stage's checkpoint; 0 where there is none."""
    path = folder / f"{stage}.ckpt"
    if not path.exists():
        return 0
    return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["step"])


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
