"""Start videos out of a recording, beside the few that a world is shipped with.

Legend: n clips, T frames a chunk, H W pixels, C t h w latents of a clip.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from magi_world.training.data import ChunkDataset, split_shards
from magi_world.world.parts import WorldParts
from magi_world.world.start import choose_start

AFTER = 3  # chunks that the recorded episode still lasts after a start
BATCH = 32


def recorded_starts(parts: WorldParts, folder: str | Path, count: int, seed: int) -> Tensor:
    """Latents (n, C, t, h, w) of clips of a recording, as long as the world's own starts.

    Args:
        folder: of shards, or of a run of `magi-world train-world`.
        count: n; fewer where the recording has fewer places to begin at.
        seed: decides which.

    Raises:
        ValueError: no shards, chunks of another size, or no episode that is long enough.
    """
    place = Path(folder)
    if not any(place.glob("shard_*.safetensors")):
        place = place / "data"
    data = ChunkDataset(split_shards(place, 0)[0])
    width = parts.config.sampler.chunk_width
    chunks = 1 if parts.starts is None else parts.starts.shape[2] // width
    spec = parts.spec
    expected, shape = (spec.frames_per_chunk, *spec.frame_size, 3), tuple(data.frames[0].shape[1:])
    if shape != expected:
        raise ValueError(f"{place} has chunks of shape {shape}; {spec.name} needs {expected}")
    rows = data.starts(chunks + AFTER)
    if len(rows) == 0:
        raise ValueError(f"{place} has no episode of {chunks + AFTER} chunks to take a start from")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    rows = rows[order[:count]].sort().values
    # Chunk by chunk, as the world's transformer met them in its training.
    index = (rows[:, None] + torch.arange(chunks)).flatten()
    parts_of = [_encoded(parts, data.pixels(some)) for some in index.split(BATCH)]
    latents = torch.cat(parts_of).unflatten(0, (len(rows), chunks))
    return latents.transpose(1, 2).flatten(2, 3)


def with_starts(parts: WorldParts, starts: Tensor) -> WorldParts:
    """The same world with more start videos for seeds to pick from."""
    # The world's own are kept as they are stored, in half precision perhaps.
    own = [] if parts.starts is None else [parts.starts.float()]
    every = torch.cat([*own, starts.to(own[0].device if own else "cpu")])
    spec = replace(parts.spec, num_starts=len(every))
    return replace(parts, starts=every, spec=spec)


@torch.inference_mode()
def _encoded(parts: WorldParts, frames: Tensor) -> Tensor:
    start = choose_start(parts, [0] * len(frames), None, frames, None)
    assert start is not None, "a video was given"
    return start.latents.cpu()
