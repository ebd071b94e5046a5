"""What a world begins with: its own start videos, an image, a video, or nothing but text.

Shapes: n worlds, K start videos, T video frames, H, W pixels, C latent channels, t latent frames,
h, l latent size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from magi_world.model.tiling import encode_tiled
from magi_world.model.vae import frames_to_video
from magi_world.world.chunk import decode_latents
from magi_world.world.parts import WorldParts

Pixels = np.ndarray | Tensor
CELLS = 8  # a picture is judged as so many cells across and down
AT_A_TIME = 8  # start videos decoded together


@dataclass(frozen=True, eq=False)
class Beginning:
    """What `World.reset` was asked for. rows, seeds, scenes: one for each of these worlds.

    scenes: None is the world's own.    image, video, start: as in `World.reset`.
    """

    rows: Sequence[int]
    seeds: Sequence[int]
    scenes: Sequence[str | None]
    image: Pixels | None = None
    video: Pixels | None = None
    start: int | Literal["text"] | None = None


@dataclass(frozen=True)
class Start:
    """What a video begins with.

    latents: (n, C, t, h, l), scaled.
    frames: (n, T, H, W, 3) uint8 on the model's device; None = must be decoded.
    """

    latents: Tensor
    frames: Tensor | None = None


def choose_start(
    parts: WorldParts,
    seeds: Sequence[int],
    image: Pixels | None = None,
    video: Pixels | None = None,
    start: int | Literal["text"] | None = None,
) -> Start | None:
    """What the videos of these seeds begin with; None means text alone.

    Raises:
        ValueError: more than one start, an unknown one, pixels of the wrong shape or dtype.
    """
    options = (("image", image), ("video", video), ("start", start))
    given = [name for name, value in options if value is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} were given; a world starts from one of them")
    if image is not None:
        return _encode(parts, _frames(parts, "image", image, len(seeds)))
    if video is not None:
        return _encode(parts, _frames(parts, "video", video, len(seeds)))
    count = 0 if parts.starts is None else len(parts.starts)
    if start == "text" or (start is None and count == 0):
        return None
    whole = isinstance(start, int | np.integer) and not isinstance(start, bool)
    if start is not None and not (whole and 0 <= start < count):
        choice = f"'text' or 0 .. {count - 1}" if count else "'text': there are no start videos"
        raise ValueError(f"start is {start!r}; it must be {choice}")
    picked = [_pick(seed, count) if start is None else int(start) for seed in seeds]
    assert parts.starts is not None
    return Start(parts.starts[picked].float())


def first_chunk(start: Start, width: int, frames_per_chunk: int) -> tuple[Tensor, Tensor | None]:
    """The last chunk's worth of a start: latents (n, C, width, h, l) and frames, if there are any.

    A shorter start is padded at the front with its first frame.
    """
    latents = _last(start.latents, 2, width)
    frames = None if start.frames is None else _last(start.frames, 1, frames_per_chunk)
    return latents, frames


def _last(x: Tensor, axis: int, count: int) -> Tensor:
    missing = max(0, count - x.shape[axis])
    repeats = x.narrow(axis, 0, 1).repeat_interleave(missing, axis)
    return torch.cat([repeats, x], axis).narrow(axis, x.shape[axis] + missing - count, count)


def _pick(seed: int, count: int) -> int:
    digest = hashlib.blake2b(f"{seed}:start".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % count


def _frames(parts: WorldParts, name: str, given: Pixels, worlds: int) -> Tensor:
    """uint8 (n, T, H, W, 3) of an image (H, W, 3) or video (T, H, W, 3), with or without n."""
    if not isinstance(given, np.ndarray | Tensor):
        raise ValueError(f"{name} is a {type(given).__name__}; it must be a uint8 array")
    try:
        # Torch takes no array that runs backwards.
        given = np.ascontiguousarray(given) if isinstance(given, np.ndarray) else given
        frames = torch.as_tensor(given)
    except TypeError:
        raise ValueError(f"{name} has dtype {given.dtype}; it must be uint8, 0 .. 255") from None
    if frames.dtype != torch.uint8:
        raise ValueError(f"{name} has dtype {frames.dtype}; it must be uint8, 0 .. 255")
    single = 3 if name == "image" else 4
    if frames.ndim == single:
        frames = frames.expand(worlds, *frames.shape)
    if name == "image" and frames.ndim == 4:
        frames = frames[:, None]
    height, width = parts.spec.frame_size
    expected = (worlds, *frames.shape[1:2], height, width, 3)
    if tuple(frames.shape) != expected or frames.shape[1] == 0:
        axes = f"{height}, {width}, 3" if name == "image" else f"T, {height}, {width}, 3"
        raise ValueError(
            f"{name} has shape {tuple(given.shape)}; it must be ({axes}), or ({worlds}, {axes}) "
            "with one for each world (magi_world.io.media.fit scales and crops)"
        )
    return frames


def _encode(parts: WorldParts, frames: Tensor) -> Start:
    """Whole groups of frames, the newest ones; fewer than one group stand for an image."""
    length = parts.config.vae.patch_length
    count = frames.shape[1]
    used = frames[:, :1] if count == 1 else frames[:, count % length if count >= length else 0 :]
    if 1 < count < length:
        used = _last(used, 1, length)
    used = used.to(parts.device)
    video = frames_to_video(used, parts.vae.encoder.pos_embed.dtype)
    tile = parts.tile
    # One at a time, so that a world's start does not depend on how many are started together.
    encoded = [
        _in_pieces(parts, clip)
        if tile is None
        else encode_tiled(parts.vae, clip, tile, parts.spread)
        for clip in video.split(1)
    ]
    return Start(parts.vae.scale(torch.cat(encoded)).float(), used)


def _in_pieces(parts: WorldParts, video: Tensor) -> Tensor:
    """Unscaled latents of a clip, in the lengths that the autoencoder was trained on: those of
    frames that were encoded in longer company are not what the transformer has learnt from."""
    pieces = video.split(parts.config.vae.video_length, dim=2)
    return torch.cat([parts.vae.encode(piece) for piece in pieces], dim=2)


def best_start(parts: WorldParts) -> int | None:
    """Number of the start to open with; None where a world has no start videos.

    It is what the package names (`WorldSpec.best_start`), else the one whose last picture has the
    most to see: a wall right in front of the eyes has not, a wide view with things in it has.
    """
    named = parts.spec.best_start
    if named is not None and named < parts.spec.num_starts:
        return named
    if parts.starts is None or not len(parts.starts):
        return None
    return max(range(len(parts.starts)), key=[variety(f) for f in last_frames(parts)].__getitem__)


@torch.inference_mode()
def last_frames(parts: WorldParts, number: int | None = None) -> np.ndarray:
    """The picture that each start video ends with, or one of them, uint8 (K or 1, H, W, 3)."""
    assert parts.starts is not None, "the caller has looked"
    device = parts.device
    width = parts.config.sampler.chunk_width
    chosen = parts.starts if number is None else parts.starts[number : number + 1]
    ends = chosen[:, :, -width:].float().split(AT_A_TIME)
    return np.concatenate([decode_latents(parts, x.to(device))[:, -1].cpu().numpy() for x in ends])


def variety(frame: np.ndarray) -> float:
    """How much a picture (H, W, 3) varies over its area: the spread of its cells' colours."""
    cells = Image.fromarray(frame).resize((CELLS, CELLS), Image.Resampling.BOX)
    return float(np.asarray(cells, np.float64).std((0, 1)).mean())
