"""What a world's heads saw happen, chunk by chunk: counts, points, and what is new.

Shapes: B worlds, C latent channels, T latent frames, h, w latent size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from magi_world.model.heads import Heads
from magi_world.world.parts import WorldParts

LIKELY = 0.5  # an event with at least this probability counts as one that happened


@dataclass(frozen=True)
class Score:
    """Since the beginning of this timeline.

    counts: event -> in how many chunks it happened; every event of the world is there.
    points: sum of what these are worth.    fresh: events of the newest chunk.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    points: float = 0.0
    fresh: tuple[str, ...] = ()

    def after(self, happened: Mapping[str, float]) -> Score:
        """With one more chunk, in which these events (name -> worth) happened."""
        counts = {name: n + (name in happened) for name, n in self.counts.items()}
        return Score(counts, self.points + sum(happened.values()), tuple(happened))


def first_score(parts: WorldParts) -> Score | None:
    """Nothing has happened yet; None where a world foresees no events."""
    heads = parts.heads
    return Score(dict.fromkeys(heads.config.events, 0)) if isinstance(heads, Heads) else None


@torch.inference_mode()
def next_score(parts: WorldParts, before: Score | None, latents: Tensor) -> Score | None:
    """After one more chunk; ``latents`` (1, C, T, h, w) are those of the chunk."""
    heads = parts.heads
    if before is None or not isinstance(heads, Heads):
        return None
    events = heads(latents)["events"]
    worth = dict(zip(heads.config.events, heads.config.reward, strict=True))
    return before.after({n: worth[n] for n, p in events.items() if float(p[0]) >= LIKELY})


class Flashes:
    """What has just happened, for as long as it is worth a look."""

    def __init__(self, seconds: float = 1.2) -> None:
        """``seconds`` that each is shown."""
        self.seconds = seconds
        self._shown: list[tuple[str, float]] = []

    def add(self, event: str, now: float) -> None:
        """This happened."""
        self._shown.append((event, now))

    def current(self, now: float) -> list[tuple[str, float]]:
        """(event, age from 0 to 1), the oldest first."""
        self._shown = [(e, t) for e, t in self._shown if now - t < self.seconds]
        return [(e, (now - t) / self.seconds) for e, t in self._shown]
