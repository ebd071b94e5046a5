"""The recording as latents: chunks and their mirror images, encoded when first asked for.

A training run touches each chunk only a few times, so encoding everything in front would cost
more than it saves; what was encoded is kept in memory, in float16.

Legend: N chunks of the recording, C W h w latents of one chunk.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from magi_world.model.vae import VAE, frames_to_video
from magi_world.training.codec import training_attention
from magi_world.training.dataset import ChunkDataset
from magi_world.training.precision import mixed


class LatentDataset:
    """Clips of latents with their commands, each as recorded or mirrored.

    Args:
        vae: encodes; latents are scaled by its ``scale_factor``.
        data: the recording.
        commands: the command table of the recording.
        autocast: encode in bfloat16; None = where that is faster.
    """

    def __init__(
        self, vae: VAE, data: ChunkDataset, commands: Sequence[str], autocast: bool | None = None
    ) -> None:
        self.vae, self.data = vae.eval().requires_grad_(False), data
        self.device = next(vae.parameters()).device
        self.autocast = mixed(autocast, self.device)
        size = data.frames[0].shape
        cfg = vae.config
        self.shape = (
            cfg.latent_channels,
            size[1] // cfg.patch_length,
            size[2] // cfg.patch_size,
            size[3] // cfg.patch_size,
        )
        self._latents = torch.zeros(2, len(data), *self.shape, dtype=torch.float16)
        self._known = torch.zeros(2, len(data), dtype=torch.bool)
        mirrored = data.images(commands)
        self.command = torch.stack([data.command, mirrored[data.command]])
        count = torch.bincount(data.command, minlength=len(commands)).clamp_min(1).float()
        count = (count + count[mirrored]) / 2
        self._rarity = (count.mean() / count).sqrt()
        self._weights: dict[int, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def latents(self, side: Tensor, rows: Tensor, batch: int = 64) -> Tensor:
        """Latents (n, C, W, h, w) float32 of ``rows``, mirrored where ``side`` is 1."""
        new = torch.unique(torch.stack([side, rows], 1)[~self._known[side, rows]], dim=0)
        for part in new.split(batch) if len(new) else ():
            s, r = part.unbind(1)
            frames = self.data.pixels(r, s.bool()).to(self.device)
            with (
                torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast),
                training_attention(self.device),
            ):
                z = self.vae.scale(self.vae.encode(frames_to_video(frames)))
            self._latents[s, r] = z.half().cpu()
            self._known[s, r] = True
        return self._latents[side, rows].float()

    def windows(self, length: int) -> tuple[Tensor, Tensor]:
        """Starts of clips and their weights: clips with rare commands are drawn more often."""
        if length not in self._weights:
            starts = self.data.starts(length)
            # The chunk in which an episode ends is padded with its last frame.
            starts = starts[self.data.end[starts + length - 1] == 0]
            rarity = self._rarity[self.data.command].double().cumsum(0)
            total = torch.cat([torch.zeros(1).double(), rarity])
            self._weights[length] = starts, total[starts + length] - total[starts]
        return self._weights[length]

    def clips(
        self, count: int, length: int, generator: torch.Generator, weighted: bool = True
    ) -> tuple[Tensor, Tensor]:
        """``count`` clips: latents (count, length, C, W, h, w) float32, commands (count, length).

        The command of a chunk is the one that was held while it was recorded.
        """
        starts, weights = self.windows(length)
        if not weighted:
            weights = torch.ones_like(weights)
        rows = starts[torch.multinomial(weights, count, True, generator=generator)]
        side = self.data.sides(count, generator)[:, None].expand(-1, length)
        index = rows[:, None] + torch.arange(length)
        clips = self.latents(side.flatten(), index.flatten())
        return clips.unflatten(0, (count, length)), self.command[side, index]
