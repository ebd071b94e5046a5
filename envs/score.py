"""What rewards look at, and what they say.

Shapes: B worlds, C latent channels, t latent frames, h, l latent size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from magi_world.world.chunk import Chunk


class Heads(Protocol):
    """Predictors that a world may carry in ``world.parts.heads``."""

    def __call__(self, latents: Tensor) -> Mapping[str, Any]:
        """For each chunk of latents (B, C, t, h, l), scaled as in `Chunk.latents`.

        Returns:
            "reward": (B,).    "end": (B,) probability that the episode ends in this chunk.
            "events": name -> (B,), anything else that the world predicts.
        """


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the heads say, in host memory: (B,) float64 each."""

    reward: np.ndarray
    end: np.ndarray
    events: dict[str, np.ndarray] = field(default_factory=dict)

    def of(self, row: int) -> dict[str, float]:
        """Events and end probability of one world, for `info`."""
        return {"end": float(self.end[row])} | {k: float(v[row]) for k, v in self.events.items()}


@dataclass(frozen=True, eq=False)
class Moment:
    """What a reward may look at: the newest chunk of every world.

    infos, seeds: one per world.    predicted: None where the world has no heads.
    """

    chunk: Chunk
    infos: Sequence[dict[str, Any]]
    seeds: Sequence[int]
    predicted: Prediction | None = None


@dataclass(frozen=True, eq=False)
class Score:
    """reward: (B,) float64.    ended: (B,) bool, the episode is over for a reason of its own.

    parts: name -> (B,), what the reward was added up from.
    """

    reward: np.ndarray
    ended: np.ndarray
    parts: dict[str, np.ndarray] = field(default_factory=dict)


@runtime_checkable
class Reward(Protocol):
    """Scores all worlds at once."""

    @property
    def name(self) -> str:
        """What its term is called in `info`."""

    @property
    def needs_pixels(self) -> bool:
        """Whether chunks must be decoded for it."""

    def score(self, moment: Moment) -> Score:
        """The score of every world."""
