"""What an episode begins with: the world's own start, a picture, a film, or text alone.

Shapes: T video frames, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from magi_world.envs.chunks import joined
from magi_world.io.media import fit, load_image, load_video
from magi_world.session.events import StartFile
from magi_world.session.replaying import start_frames
from magi_world.world.chunk import Chunk
from magi_world.world.world import World

StartLike = int | str | Path | np.ndarray | None
VIDEO_SUFFIXES = frozenset((".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".gif"))


@dataclass(frozen=True, eq=False)
class Begin:
    """A start that was read and fits the world.

    start: as `World.reset` has it.
    frames: (H, W, 3) or (T, H, W, 3) uint8 of the world's size; None where `start` says it all.
    file: where the frames come from, if from a file.
    """

    start: int | Literal["text"] | None = None
    frames: np.ndarray | None = None
    file: StartFile | None = None

    def arguments(self) -> dict[str, Any]:
        """For `World.reset`."""
        if self.frames is None:
            return {"start": self.start}
        return {"image" if self.frames.ndim == 3 else "video": self.frames}


def read_start(world: World, value: StartLike, name: str = "start") -> Begin:
    """Make a start ready.

    Args:
        value: None (the seed picks one of the world's own), a number of one of them, "text" (none
            at all), an image or video file, or frames (H, W, 3) or (T, H, W, 3) uint8. Pictures of
            another size are scaled and cut.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: anything else that cannot be a start.
    """
    count = world.spec.num_starts
    own = f"a number 0 .. {count - 1}, " if count else ""
    right = f"{own}'text', an image or video file, or a uint8 array"
    if value is None or (isinstance(value, str) and value == "text"):
        return Begin("text" if value else None)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        if not 0 <= value < count:
            raise ValueError(f"{name} is {value}; it must be {right}")
        return Begin(int(value))
    if isinstance(value, str | Path):
        return read_file(world, value, None, name)
    if isinstance(value, np.ndarray):
        if value.ndim not in (3, 4):
            raise ValueError(
                f"{name} has shape {value.shape}; it must be (H, W, 3) for an image or "
                "(T, H, W, 3) for a video"
            )
        return Begin(frames=_fitted(world, value, name))
    raise ValueError(f"{name} is {value!r:.80}, a {type(value).__name__}; it must be {right}")


def read_file(world: World, value: Any, kind: Literal["image", "video"] | None, name: str) -> Begin:
    """An image or video, from a file or an array; the kind is told by the file's suffix if None.

    Raises:
        As `read_start`.
    """
    if isinstance(value, np.ndarray):
        axes = {"image": 3, "video": 4}.get(kind or "", value.ndim)
        if value.ndim != axes:
            shape = "(H, W, 3)" if kind == "image" else "(T, H, W, 3)"
            raise ValueError(f"{name} has shape {value.shape}; it must be {shape}")
        return Begin(frames=_fitted(world, value, name))
    if not isinstance(value, str | Path):
        raise ValueError(
            f"{name} is {value!r:.80}, a {type(value).__name__}; it must be a file or a uint8 array"
        )
    if kind is None:
        kind = "video" if Path(value).suffix.lower() in VIDEO_SUFFIXES else "image"
    if kind == "image":
        frames = load_image(value)
    else:
        frames = load_video(value, world.spec.fps, start_frames(world))
    return Begin(frames=fit(frames, world.spec.frame_size), file=StartFile.of(value, kind))


def begin(
    world: World,
    rows: Sequence[int],
    seeds: Sequence[int],
    prompts: Sequence[str | None],
    begins: Sequence[Begin],
) -> Chunk:
    """Reset some worlds, each with its own seed, prompt and start; the chunk has their rows."""
    groups: dict[int, list[int]] = {}
    for place, one in enumerate(begins):
        groups.setdefault(id(one), []).append(place)
    chunks, order = [], []
    for places in groups.values():
        scenes: Any = [prompts[i] for i in places]
        chunk = world.reset(
            [seeds[i] for i in places],
            scenes,
            worlds=[rows[i] for i in places],
            **begins[places[0]].arguments(),
        )
        chunks.append(chunk)
        order += places
    return joined(chunks, order)


def _fitted(world: World, frames: np.ndarray, name: str) -> np.ndarray:
    try:
        return fit(frames, world.spec.frame_size)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
