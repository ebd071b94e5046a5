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

ENVIRONMENT = "environment"  # heads.reward: the simulator's own


@dataclass(frozen=True)
class FitHeadsConfig:
    """What is predicted of a chunk.

    events: of the recorded events and ``death``, the name given to the end of an episode; none of
    them, and no reward of the environment: the world has no heads. reward: event -> what one
    occurrence is worth (others 0), or "environment": the simulator's own, summed over the chunk;
    end: event that ends an episode; noise: largest share of noise mixed into the latents, because
    dreamed ones are never quite clean; chunks: how many of the recording are used.

    Raises:
        ValueError: a reward or end for an event that is not predicted.
    """

    loop: LoopConfig
    events: tuple[str, ...] = ()
    reward: Mapping[str, float] | str = field(default_factory=dict)
    end: str = ""
    death: str = "death"
    width: int = 64
    noise: float = 0.1
    chunks: int = 8000

    def __post_init__(self) -> None:
        if isinstance(self.reward, str) and self.reward != ENVIRONMENT:
            raise ValueError(
                f"heads.reward is {self.reward!r}; it must be {ENVIRONMENT!r} or event: worth"
            )
        known = self.predicted
        if unknown := sorted(set(self.worth) - set(known)):
            raise ValueError(
                f"heads.reward names {unknown}; it may name what heads.events predicts, "
                f"{list(known)}"
            )
        if self.end not in ("", *known):
            raise ValueError(
                f"heads.end is {self.end!r}; it must be '' or one of what heads.events predicts, "
                f"{list(known)}"
            )

    @property
    def worth(self) -> Mapping[str, float]:
        """Event -> reward; empty where the reward is the environment's."""
        return {} if isinstance(self.reward, str) else self.reward

    @property
    def from_environment(self) -> bool:
        """Whether the simulator's own reward is learned."""
        return self.reward == ENVIRONMENT

    @property
    def predicted(self) -> tuple[str, ...]:
        """The events that heads tell; a reward alone comes with the end of the episode."""
        return self.events or ((self.death,) if self.from_environment else ())


def labels(config: FitHeadsConfig, data: ChunkDataset, recorded: Sequence[str]) -> Tensor:
    """(N, E) float, 1 where the event happened in the chunk.

    Raises:
        ValueError: an event that is not recorded.
    """
    columns = dict(zip(recorded, (data.events > 0).float().unbind(1), strict=True))
    columns[config.death] = (data.end == 1).float()
    if unknown := set(config.predicted) - set(columns):
        raise ValueError(f"heads: events {sorted(unknown)} must be among {sorted(columns)}")
    return torch.stack([columns[name] for name in config.predicted], dim=1)


def fit_heads(
    config: FitHeadsConfig,
    data: LatentDataset,
    recorded: Sequence[str],
    folder: Path,
    device: torch.device,
) -> Heads:
    """Train on chunks of ``data``; resumes from ``folder/heads.ckpt``.

    Raises:
        ValueError: nothing is predicted, or an event that is not recorded.
        Stopped: asked to stop; run again to go on.
    """
    names = config.predicted
    if not names:
        raise ValueError("heads.events is empty; a world without heads needs no fit_heads")
    known = labels(config, data.data, recorded)
    reward = data.data.reward
    # A reward that never changes still has a spread to divide by.
    own = (float(reward.mean()), max(float(reward.std()), 1e-3))
    channels, frames, *size = data.shape
    torch.manual_seed(config.loop.seed)
    heads = Heads(
        HeadsConfig(
            latent_channels=channels,
            latent_frames=frames,
            latent_size=(size[0], size[1]),
            events=names,
            reward=tuple(config.worth.get(n, 0.0) for n in names),
            end=config.end,
            width=config.width,
            own=own if config.from_environment else None,
        )
    ).to(device)
    pick = torch.Generator().manual_seed(config.loop.seed)
    use = torch.randperm(len(data.data), generator=pick)[: config.chunks]
    mirrored = data.data.sides(len(use), pick)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(use), (config.loop.batch,), generator=generator)
        rows, side = use[rows], mirrored[rows]
        z = data.latents(side, rows)
        share = torch.rand(len(rows), 1, 1, 1, 1, generator=generator) * config.noise
        z = z * (1 - share) + torch.randn(z.shape, generator=generator) * share
        features = heads.features(z.to(device))
        value = F.binary_cross_entropy_with_logits(heads.fc2(features), known[rows].to(device))
        if config.from_environment:
            wanted = ((reward[rows] - own[0]) / own[1]).to(device)
            value = value + F.mse_loss(heads.value(features).squeeze(1), wanted)
        return value, {}

    train("heads", heads, loss, config.loop, folder, matrices="fc1")
    return heads.eval()


@torch.no_grad()
def measure_heads(
    heads: Heads, config: FitHeadsConfig, data: LatentDataset, recorded: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Per event on all chunks: share, precision and recall at 0.5, mean prediction, Brier score.

    "reward", where it is the environment's: its mean and spread, the error (root of the mean
    square) and the share of its variance that is explained.
    """
    device = next(heads.parameters()).device
    rows = torch.arange(len(data.data))
    side = torch.zeros_like(rows)
    told = [
        heads(data.latents(s, r).to(device))
        for s, r in zip(side.split(256), rows.split(256), strict=True)
    ]
    said = torch.cat([torch.stack(list(t["events"].values()), 1).cpu() for t in told])
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
    if heads.config.own is not None:
        real = data.data.reward
        error = (torch.cat([t["reward"].cpu() for t in told]) - real).square().mean()
        variance = real.var(correction=0).clamp_min(1e-12)
        out["reward"] = {
            "mean": float(real.mean()),
            "spread": float(variance.sqrt()),
            "error": float(error.sqrt()),
            "explained": float(1 - error / variance),
        }
    return out
