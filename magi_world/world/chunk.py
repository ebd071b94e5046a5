"""What a world gives back: one chunk of video for every world of the batch.

Shapes: B worlds, T video frames, H, W pixels, C latent channels, w latent frames, h, l latent size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from magi_world.model.tiling import decode_tiled
from magi_world.model.vae import video_to_frames
from magi_world.world.parts import WorldParts
from magi_world.world.snapshot import PromptState


@dataclass(frozen=True, eq=False)
class Chunk:
    """A clean chunk of every world.

    latents: (B, C, w, h, l) float32, scaled, on the world's device.
    pixels: (B, T, H, W, 3) uint8 on the world's device; None until decoded.
    index: per world, steps since its reset; 0 is what the reset gave.
    prompts: per world, the command that is in force.
    lands: per world, the index of the first chunk that the command in force conditions.
    skip: per world, video frames at the front that only repeat the start video.
    before: like latents, the clean chunks in front of these, where the world's predictors see two
        chunks; else None, and after a reset.
    ready: after which the pixels are there; None: they are.
    """

    latents: Tensor
    index: tuple[int, ...]
    prompts: tuple[str, ...]
    lands: tuple[int, ...]
    skip: tuple[int, ...]
    pixels: Tensor | None = None
    ready: torch.cuda.Event | None = None
    before: Tensor | None = None

    @staticmethod
    def of(
        prompts: Sequence[PromptState], latents: Tensor, skip: tuple[int, ...] | None = None
    ) -> Chunk:
        """The chunk that led to these prompts, one a world, not yet decoded; skips nothing."""
        return Chunk(
            latents,
            index=tuple(p.steps for p in prompts),
            prompts=tuple(p.command for p in prompts),
            lands=tuple(p.lands for p in prompts),
            skip=(0,) * len(prompts) if skip is None else skip,
        )

    @property
    def seen(self) -> Tensor:
        """What a world's predictors look at: (B, C, 2 w, h, l) with the chunk before in front, or
        ``latents`` where there is none."""
        return self.latents if self.before is None else torch.cat([self.before, self.latents], 2)

    @cached_property
    def frames(self) -> np.ndarray:
        """(B, T, H, W, 3) uint8 in host memory, made on first use.

        Raises:
            ValueError: the chunk has not been decoded (`World.decode`).
        """
        return self.decoded.cpu().numpy()

    @property
    def decoded(self) -> Tensor:
        """`pixels`, or a clear error where there are none."""
        if self.pixels is None:
            raise ValueError("this chunk holds latents only; World.decode(chunk) makes its frames")
        if self.ready is not None:
            stream = torch.cuda.current_stream(self.pixels.device)
            self.ready.wait(stream)
            self.pixels.record_stream(stream)
        return self.pixels

    def with_pixels(self, pixels: Tensor, ready: torch.cuda.Event | None = None) -> Chunk:
        """The decoded chunk; ``ready`` is the event after which it is."""
        return replace(self, pixels=pixels, ready=ready)


def decode_chunk(parts: WorldParts, chunk: Chunk) -> Chunk:
    """The same chunk with its pixels."""
    if parts.beside is None:
        return chunk.with_pixels(decode_latents(parts, chunk.latents))
    pixels, done = parts.beside.run(partial(decode_latents, parts), chunk.latents)
    return chunk.with_pixels(pixels, done)


def decode_latents(parts: WorldParts, latents: Tensor) -> Tensor:
    """Scaled latents (n, C, t, h, l) -> uint8 frames (n, T, H, W, 3)."""
    unscaled = parts.vae.unscale(latents)
    if parts.tile is None:
        video = parts.vae.decode(unscaled, first_frame_only=False)
    else:
        video = decode_tiled(
            parts.vae, unscaled, parts.tile, first_frame_only=False, spread=parts.spread
        )
    return video_to_frames(video)
