"""Inverse dynamics: which command was held during a chunk, told from its frames alone.

Trained on real chunks only, it judges whether a dreamed chunk does what it was told. Half of them
are softened by a random amount, so that it has to look at motion: a judge of sharp pictures alone
takes every soft one for standing still, whatever moves in it. How sharp dreams are is measured
separately (`magi_world.training.evaluate`).

Legend: N chunks, T frames, H W pixels, A commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magi_world.training.dataset import ChunkDataset
from magi_world.training.loop import LoopConfig, train


@dataclass(frozen=True)
class ClassifierConfig:
    """Width of the network, its optimisation, and by how many passes of a (1, 2, 1) / 4 filter
    training pictures are softened at most."""

    loop: LoopConfig
    width: int = 32
    soften: int = 6


class InverseDynamics(nn.Module):
    """Convolutions over the frames of a chunk, stacked on the channel axis."""

    def __init__(
        self, frames: int, size: tuple[int, int], judged: Sequence[int], width: int = 32
    ) -> None:
        """``judged``: rows of the command table between which it decides."""
        super().__init__()
        self.register_buffer("judged", torch.tensor(list(judged)))
        self.features = nn.Sequential(
            nn.Conv2d(2 * frames - 1, width, 5, 2, 2),
            nn.GELU(),
            nn.Conv2d(width, 2 * width, 3, 2, 1),
            nn.GELU(),
            nn.Conv2d(2 * width, 2 * width, 3, 2, 1),
            nn.GELU(),
            nn.Flatten(),
        )
        inner = 2 * width * -(-size[0] // 8) * -(-size[1] // 8)
        self.blocks = nn.Sequential(nn.Linear(inner, 128), nn.GELU(), nn.Linear(128, len(judged)))

    def look(self, frames: Tensor) -> Tensor:
        """uint8 (N, T, H, W, 3) -> features (N, ..) of the grey frames and their differences.

        Both in units of their usual contrast: dark pictures in [-1, 1] are learnt very slowly. The
        frames may be on another device; the features are on the judge's.
        """
        frames = frames.to(next(self.parameters()).device)
        return self.regard((frames.float().mean(-1) - 40) / 40)

    def regard(self, grey: Tensor) -> Tensor:
        """Normalised grey frames (N, T, H, W) -> features (N, ..)."""
        return self.features(torch.cat([grey, 4 * grey.diff(dim=1)], dim=1))

    def forward(self, frames: Tensor, passes: Tensor | None = None) -> Tensor:
        """uint8 (N, T, H, W, 3) -> logits (N, A); passes (N,): of the filter that softens each."""
        grey = (frames.float().mean(-1) - 40) / 40
        if passes is not None:
            grey = soften(grey, passes)
        return self.blocks(self.regard(grey))

    @torch.no_grad()
    def predict(self, frames: Tensor, batch: int = 256) -> Tensor:
        """uint8 (N, T, H, W, 3) -> row of the command table (N,)."""
        device = next(self.parameters()).device
        parts = [self(part.to(device)).argmax(1).cpu() for part in frames.split(batch)]
        return self.get_buffer("judged").cpu()[torch.cat(parts)]


def soften(grey: Tensor, passes: Tensor) -> Tensor:
    """(N, T, H, W) pictures, the n-th filtered ``passes[n]`` times by (1, 2, 1) / 4 both ways."""
    kernel = grey.new_tensor([1.0, 2.0, 1.0]) / 4
    kernel = (kernel[:, None] * kernel).expand(grey.shape[1], 1, 3, 3)
    for done in range(int(passes.max())):
        padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
        softer = F.conv2d(padded, kernel, groups=grey.shape[1])
        grey = torch.where((passes > done)[:, None, None, None], softer, grey)
    return grey


def train_classifier(
    config: ClassifierConfig,
    data: ChunkDataset,
    commands: Sequence[str],
    folder: Path,
    device: torch.device,
    moves: Sequence[str] | None = None,
) -> InverseDynamics:
    """Train on real chunks, commands drawn equally often; resumes from ``classifier.ckpt``.

    Args:
        moves: the commands that can be told from one chunk (`RecordConfig.moves`); None = all.

    Raises:
        Stopped: asked to stop; run again to go on.
    """
    torch.manual_seed(config.loop.seed)
    judged = [i for i, name in enumerate(commands) if moves is None or name in moves]
    size = data.frames[0].shape
    model = InverseDynamics(size[1], (size[2], size[3]), judged, config.width).to(device)
    mirrored = data.images(commands)
    rank = torch.full((len(commands),), -1)
    rank[judged] = torch.arange(len(judged))
    whole = data.end == 0
    rows = [torch.nonzero((data.command == c) & whole).squeeze(1) for c in range(len(commands))]
    if absent := [commands[i] for i in judged if len(rows[i]) == 0]:
        raise ValueError(f"commands {absent} do not occur in the recording; record more chunks")

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        drawn = torch.randint(len(judged), (config.loop.batch,), generator=generator)
        command = torch.tensor(judged)[drawn]
        side = data.sides(len(command), generator).bool()
        pick = torch.rand(len(command), generator=generator)
        # A mirrored chunk of the mirrored command is a chunk of this one.
        source = torch.where(side, mirrored[command], command)
        chosen = torch.stack(
            [rows[c][int(u * len(rows[c]))] for c, u in zip(source.tolist(), pick, strict=True)]
        )
        passes = torch.randint(1 + config.soften, (len(command),), generator=generator)
        passes = passes * (torch.rand(len(command), generator=generator) < 0.5)
        logits = model(data.pixels(chosen, side).to(device), passes.to(device))
        value = F.cross_entropy(logits, rank[command].to(device))
        right = float((logits.argmax(1).cpu() == rank[command]).float().mean())
        return value, {"accuracy": right}

    train("classifier", model, loss, config.loop, folder, matrices="blocks")
    return model.eval()


def accuracy(predicted: Tensor, command: Tensor, commands: Sequence[str]) -> dict[str, float]:
    """Mean over all chunks ("all") and for every command that occurs."""
    right = (predicted == command).float()
    out = {"all": float(right.mean())}
    for i, name in enumerate(commands):
        if bool((command == i).any()):
            out[name] = float(right[command == i].mean())
    return out
