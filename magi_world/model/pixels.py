"""Clips as tensors: what a video or its latents must look like, and uint8 frames to and from float.

Shape legend
    frames   (N, T, H, W, 3)  uint8
    video    (N, 3, T, H, W)  float, [-1, 1]
    latents  (N, C, t, h, w)  float
"""

from __future__ import annotations

import torch
from torch import Tensor

from magi_world.config import VAEConfig, require


def check_video(video: Tensor, config: VAEConfig, image_allowed: bool = False) -> None:
    """Raise ValueError unless ``video`` is float (N, 3, T, H, W) of a size that can be encoded."""
    _check_clip("video", video, 3)
    frames, height, width = video.shape[2:]
    if not (image_allowed and frames == 1):
        also = ", or 1 for an image" if image_allowed else ""
        _check_divides("frames", frames, config.patch_length, also)
    _check_divides("height", height, config.patch_size)
    _check_divides("width", width, config.patch_size)


def check_latents(latents: Tensor, config: VAEConfig) -> None:
    """Raise ValueError unless ``latents`` is float (N, C, t, h, w) with the model's channels."""
    _check_clip("latents", latents, config.latent_channels)


def _check_clip(name: str, clip: Tensor, channels: int) -> None:
    shape = tuple(clip.shape)
    hint = " (frames_to_video converts uint8 frames)" if name == "video" else ""
    require(
        clip.is_floating_point(),
        f"{name} has dtype {clip.dtype}; it must be floating point{hint}",
    )
    require(
        len(shape) == 5 and shape[1] == channels and all(shape),
        f"{name} has shape {shape}; it must be (N, {channels}, T, H, W) with no empty axis",
    )


def _check_divides(name: str, size: int, unit: int, also: str = "") -> None:
    low, high = size // unit * unit, -(-size // unit) * unit
    require(
        size % unit == 0,
        f"video {name} is {size}; it must be divisible by {unit} "
        f"(nearest: {f'{low} or {high}' if low else high}){also}",
    )


def frames_to_video(frames: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 frames (N, T, H, W, 3) -> float video (N, 3, T, H, W) in [-1, 1], x / 127.5 - 1.

    Raises:
        ValueError: wrong shape or dtype.
    """
    require(
        frames.dim() == 5 and frames.shape[-1] == 3 and frames.dtype == torch.uint8,
        f"frames are {frames.dtype} of shape {tuple(frames.shape)}; they must be torch.uint8 of "
        "shape (N, T, H, W, 3)",
    )
    return (frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1).to(dtype)


def video_to_frames(video: Tensor) -> Tensor:
    """Float video (N, 3, T, H, W) -> uint8 frames (N, T, H, W, 3), rounded and clamped.

    Raises:
        ValueError: wrong shape or dtype.
    """
    _check_clip("video", video, 3)
    pixels = ((video.float() + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 4, 1).contiguous()
