"""A price on rewards that the heads are not sure of, so that an agent does not hunt their mistakes.

The heads are one network, not several whose disagreement could be asked for. What can be asked is
how much their reward moves when the latents move a little: where a real reward is seen, little;
where the latents are off what the heads were trained on, much.

Shapes: B worlds, C latent channels, t latent frames, h, l latent size, m samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from magi_world.envs.score import Heads, Moment, Score


@dataclass(frozen=True)
class UncertaintyConfig:
    """noise: standard deviation of what is added to the latents.    samples: m, how often."""

    noise: float = 0.2
    samples: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.noise > 0:
            raise ValueError(f"UncertaintyConfig.noise is {self.noise}; it must be above 0")
        if self.samples < 2:
            raise ValueError(f"UncertaintyConfig.samples is {self.samples}; it must be at least 2")


class UncertaintyPenalty:
    """Minus the standard deviation of the predicted reward over noisy copies of the latents.

    The noise is the same for all chunks: the penalty of a chunk depends on nothing but the chunk.
    """

    name, needs_pixels = "uncertainty", False

    def __init__(self, heads: Heads, config: UncertaintyConfig | None = None) -> None:
        """``heads`` are the world's, ``world.parts.heads``."""
        self.heads, self.config = heads, config or UncertaintyConfig()

    @torch.inference_mode()
    def score(self, moment: Moment) -> Score:
        """At most 0, and never an end."""
        latents = moment.chunk.latents.float()
        noisy = latents[None] + self._noise(latents)[:, None]
        said = self.heads(noisy.flatten(0, 1))["reward"]
        spread = torch.as_tensor(said).float().unflatten(0, noisy.shape[:2]).std(0)
        penalty = -spread.cpu().numpy().astype(np.float64)
        return Score(penalty, np.zeros(len(penalty), bool), {self.name: penalty})

    def _noise(self, latents: Tensor) -> Tensor:
        """(m, C, t, h, l), half of it the other half's opposite: it has no mean to mistake."""
        cfg = self.config
        generator = torch.Generator().manual_seed(cfg.seed)
        half = torch.randn((-(-cfg.samples // 2), *latents.shape[1:]), generator=generator)
        both = torch.cat([half, -half])[: cfg.samples]
        return (cfg.noise * both).to(latents.device)
