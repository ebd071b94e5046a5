"""Training the heads: events of a chunk from its latents, calibrated on held-out chunks.

Legend: N chunks, E events, C T h w latents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from magi_world.model.heads import Heads, HeadsConfig
from magi_world.training.dataset import ChunkDataset
from magi_world.training.latents import LatentDataset
from magi_world.training.loop import LoopConfig, train


@dataclass(frozen=True)
class FitHeadsConfig:
    """events: what is predicted, of the recorded events and ``death``, the name given to the end
    of an episode; reward: event -> what one occurrence is worth (others 0); end: event that ends an
    episode; noise: largest share of noise mixed into the latents, because dreamed ones are never
    quite clean; chunks: how many of the recording are used."""

    loop: LoopConfig
    events: tuple[str, ...]
    reward: Mapping[str, float] = field(default_factory=dict)
    end: str = ""
    death: str = "death"
    width: int = 64
    noise: float = 0.1
    chunks: int = 8000


def labels(config: FitHeadsConfig, data: ChunkDataset, recorded: Sequence[str]) -> Tensor:
    """(N, E) float, 1 where the event happened in the chunk.

    Raises:
        ValueError: an event that is not recorded.
    """
    columns = dict(zip(recorded, (data.events > 0).float().unbind(1), strict=True))
    columns[config.death] = (data.end == 1).float()
    if unknown := set(config.events) - set(columns):
        raise ValueError(f"heads: events {sorted(unknown)} must be among {sorted(columns)}")
    return torch.stack([columns[name] for name in config.events], dim=1)


def fit_heads(
    config: FitHeadsConfig,
    data: LatentDataset,
    recorded: Sequence[str],
    folder: Path,
    device: torch.device,
) -> Heads:
    """Train on chunks of ``data``; resumes from ``folder/heads.ckpt``.

    Raises:
        ValueError: a reward or end for an event that is not predicted.
        Stopped: asked to stop; run again to go on.
    """
    known = labels(config, data.data, recorded)
    names = config.events
    if unknown := (set(config.reward) | ({config.end} - {""})) - set(names):
        raise ValueError(f"heads: {sorted(unknown)} must be among heads.events {names}")
    channels, frames, *size = data.shape
    torch.manual_seed(config.loop.seed)
    heads = Heads(
        HeadsConfig(
            latent_channels=channels,
            latent_frames=frames,
            latent_size=(size[0], size[1]),
            events=names,
            reward=tuple(config.reward.get(n, 0.0) for n in names),
            end=config.end,
            width=config.width,
        )
    ).to(device)
    pick = torch.Generator().manual_seed(config.loop.seed)
    use = torch.randperm(len(data.data), generator=pick)[: config.chunks]
    mirrored = torch.randint(2, (len(use),), generator=pick)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(use), (config.loop.batch,), generator=generator)
        rows, side = use[rows], mirrored[rows]
        z = data.latents(side, rows)
        share = torch.rand(len(rows), 1, 1, 1, 1, generator=generator) * config.noise
        z = z * (1 - share) + torch.randn(z.shape, generator=generator) * share
        logits = heads.logits(z.to(device))
        return F.binary_cross_entropy_with_logits(logits, known[rows].to(device)), {}

    train("heads", heads, loss, config.loop, folder, matrices="fc1")
    return heads.eval()


@torch.no_grad()
def measure_heads(
    heads: Heads, config: FitHeadsConfig, data: LatentDataset, recorded: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Per event on all chunks: share, precision and recall at 0.5, mean prediction, Brier score."""
    device = next(heads.parameters()).device
    rows = torch.arange(len(data.data))
    side = torch.zeros_like(rows)
    said = torch.cat(
        [
            torch.sigmoid(heads.logits(data.latents(s, r).to(device))).cpu()
            for s, r in zip(side.split(256), rows.split(256), strict=True)
        ]
    )
    true = labels(config, data.data, recorded)
    out = {}
    for i, name in enumerate(heads.config.events):
        p, y = said[:, i], true[:, i]
        hit = ((p > 0.5) & (y > 0.5)).sum()
        out[name] = {
            "share": float(y.mean()),
            "mean_prediction": float(p.mean()),
            "precision": float(hit / (p > 0.5).sum().clamp_min(1)),
            "recall": float(hit / y.sum().clamp_min(1)),
            "brier": float((p - y).square().mean()),
            "brier_of_share": float(y.mean() * (1 - y.mean())),
        }
    return out
