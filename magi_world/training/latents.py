"""The recording as latents: every chunk and its mirror image, encoded once.

Legend: N chunks of the recording, C W h w latents of one chunk.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from magi_world.model.pixels import frames_to_video
from magi_world.model.vae import VAE
from magi_world.training.dataset import ChunkDataset, mirror_table


@torch.no_grad()
def encode_dataset(vae: VAE, data: ChunkDataset, path: Path, batch: int = 128) -> Path:
    """Write latents (2, N, C, W, h, w) float16 of ``data`` and of its mirror image to ``path``.

    A finished file is kept as it is; a file that is there is always finished.
    """
    if path.exists():
        return path
    device = next(vae.parameters()).device
    sides: list[Tensor] = []
    with tqdm(total=2 * len(data), desc=f"encode {path.stem}", unit="chunk", mininterval=5) as bar:
        for flip in (False, True):
            parts = []
            for rows in torch.arange(len(data)).split(batch):
                frames = data.pixels(rows, torch.full((len(rows),), flip)).to(device)
                parts.append(vae.scale(vae.encode(frames_to_video(frames))).half().cpu())
                bar.update(len(rows))
            sides.append(torch.cat(parts))
    part = path.with_suffix(".part")
    save_file({"latents": torch.stack(sides)}, part)
    os.replace(part, path)
    return path


class LatentDataset:
    """Clips of latents with their commands, each as recorded or mirrored."""

    def __init__(self, path: Path, data: ChunkDataset, commands: Sequence[str]) -> None:
        with safe_open(path, framework="pt") as file:
            self.latents = file.get_tensor("latents")
        if self.latents.shape[1] != len(data):
            raise ValueError(
                f"{path} holds {self.latents.shape[1]} chunks but the recording {len(data)}; "
                "remove the file to encode again"
            )
        self.data = data
        mirrored = torch.tensor(mirror_table(commands))
        self.command = torch.stack([data.command, mirrored[data.command]])
        count = torch.bincount(data.command, minlength=len(commands)).clamp_min(1).float()
        count = (count + count[mirrored]) / 2
        self._rarity = (count.mean() / count).sqrt()
        self._weights: dict[int, tuple[Tensor, Tensor]] = {}

    def _windows(self, length: int) -> tuple[Tensor, Tensor]:
        """Starts of clips and their weights: clips with rare commands are drawn more often."""
        if length not in self._weights:
            starts = self.data.starts(length)
            rarity = self._rarity[self.data.command]
            total = rarity.cumsum(0)
            ends = starts + length - 1
            self._weights[length] = starts, (total[ends] - total[starts]).double() + 1e-6
        return self._weights[length]

    def clips(
        self, count: int, length: int, generator: torch.Generator, weighted: bool = True
    ) -> tuple[Tensor, Tensor]:
        """``count`` clips: latents (count, length, C, W, h, w) float32, commands (count, length).

        The command of a chunk is the one that was held while it was recorded.
        """
        starts, weights = self._windows(length)
        if not weighted:
            weights = torch.ones_like(weights)
        rows = starts[torch.multinomial(weights, count, True, generator=generator)]
        side = torch.randint(2, (count,), generator=generator)
        index = rows[:, None] + torch.arange(length)
        clips = torch.stack([self.latents[s][i] for s, i in zip(side.tolist(), index, strict=True)])
        return clips.float(), self.command[side[:, None], index]
