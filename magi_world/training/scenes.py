"""Commands that change what a simulator's picture looks like, and leave it so: night, day.

``record.scenes`` names a class and what each of its commands does. It is made once a recording
process as ``Class(options)``, told of every episode's start and of every command of its own, and
given each frame on its way into the recording. `Tint` serves every simulator; your own class may
do more (fog from a depth buffer, snow) with the same three methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class SceneConfig:
    """Commands that change the scene.

    wrapper: 'module:Class', see `Scene`. options: command -> what the class needs to know of it.
    start: command -> share of the episodes that begin as if it had just been carried out.
    """

    options: Mapping[str, Any]
    start: Mapping[str, float]
    wrapper: str = "magi_world.training.scenes:Tint"

    def __post_init__(self) -> None:
        if not self.options:
            raise ValueError("SceneConfig.options is empty; give at least one command")
        if not self.start or set(self.start) - set(self.options):
            raise ValueError(
                f"SceneConfig.start names {sorted(self.start)}; it must name at least one of the "
                f"commands in options, {sorted(self.options)}, and no other"
            )
        if min(self.start.values()) < 0 or sum(self.start.values()) <= 0:
            raise ValueError(f"SceneConfig.start is {dict(self.start)}; shares are not negative")


class Scene(Protocol):
    """What may lie over a simulator's picture."""

    def start(self, command: str) -> None:
        """An episode begins, as if ``command`` had been carried out."""

    def change(self, command: str) -> None:
        """``command`` is held during the chunk that begins now."""

    def picture(self, frame: np.ndarray, progress: float) -> np.ndarray:
        """The frame (H, W, 3) uint8 as it is recorded; ``progress`` of the chunk, in (0, 1]."""


@dataclass
class Tint:
    """Multiplies red, green and blue; a change fades in over its chunk and then stays.

    options: command -> the three factors in [0, 1].
    """

    options: Mapping[str, Any]
    before: np.ndarray = field(default_factory=lambda: np.ones(3))
    after: np.ndarray = field(default_factory=lambda: np.ones(3))

    def __post_init__(self) -> None:
        for command, factors in self.options.items():
            values = np.asarray(factors, np.float64)
            if values.shape != (3,) or values.min() < 0 or values.max() > 1:
                raise ValueError(
                    f"scenes.options of {command!r} is {factors!r}; Tint needs three factors "
                    "between 0 and 1, of red, green and blue"
                )

    def start(self, command: str) -> None:
        self.before = self.after = np.asarray(self.options[command], np.float64)

    def change(self, command: str) -> None:
        self.before, self.after = self.after, np.asarray(self.options[command], np.float64)

    def picture(self, frame: np.ndarray, progress: float) -> np.ndarray:
        factors = self.before + (self.after - self.before) * progress
        if progress >= 1:
            self.before = self.after
        if (factors == 1).all():
            return frame
        return (frame * factors).round().astype(np.uint8)
