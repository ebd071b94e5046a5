"""Moments of one world that are saved in files, and the past that those of this session had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from magi_world.demos.window.jobs import Moment
from magi_world.world.spec import WorldSpec


class Slots:
    """The slots of a world; a file that is there may be of an earlier session."""

    def __init__(self, folder: Path, spec: WorldSpec) -> None:
        self._folder, self._world = folder, f"{spec.name}-{spec.fingerprint[:8]}"
        self._pasts: dict[int, tuple[Moment, ...]] = {}

    def path(self, slot: int) -> Path:
        return self._folder / f"{self._world}-slot-{slot}.safetensors"

    def remember(self, slot: int, past: tuple[Moment, ...]) -> None:
        """The last of ``past`` is being saved."""
        self._pasts[slot] = past

    def past(self, slot: int | None, moment: Moment) -> tuple[Moment, ...]:
        """What led to a moment that was loaded, and itself; of a file that is the moment alone."""
        *before, saved = self._pasts.get(slot or 0, (moment,))
        if saved.index == moment.index and saved.score is not None:
            moment = replace(moment, score=saved.score)
        return (*before, moment)
