"""Time: when to ask for the next chunk, how long to show a frame, and honest figures of both."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PaceConfig:
    """kept: chunk times remembered.
    warm_up: chunks before the times are trusted.
    margin: seconds by which a chunk should be ready before it is shown.
    patience: seconds that the picture may stand still so that a command lands a chunk earlier.
    slow_motion: up to this factor a world that is too slow is shown slower instead of in jerks.
    """

    kept: int = 64
    warm_up: int = 2
    margin: float = 0.03
    patience: float = 0.12
    slow_motion: float = 2.0


class Pace:
    """Learns how long chunks take, and from that when and how fast things must happen."""

    def __init__(self, fps: float, frames_per_chunk: int, config: PaceConfig | None = None) -> None:
        """``fps`` is the world's own pace."""
        self.fps, self.frames_per_chunk = fps, frames_per_chunk
        self.config = config or PaceConfig()
        self._seconds: deque[float] = deque(maxlen=self.config.kept)

    def made(self, seconds: float) -> None:
        """A chunk took so long."""
        self._seconds.append(seconds)

    def latency(self, percent: float) -> float | None:
        """Percentile of the chunk times in seconds; None before the first."""
        return float(np.percentile(self._seconds, percent)) if self._seconds else None

    @property
    def generated_fps(self) -> float | None:
        """Frames a second that the world could make, from the last eight chunks."""
        last = list(self._seconds)[-8:]
        return self.frames_per_chunk * len(last) / sum(last) if last and sum(last) > 0 else None

    @property
    def lead(self) -> float:
        """How long before the end of a chunk the next one must be asked for.

        Not earlier: whatever is said until then still shapes the next chunk.
        """
        slow = self.latency(95)
        if slow is None or len(self._seconds) < self.config.warm_up:
            return float("inf")
        return slow * 1.1 + self.config.margin

    @property
    def period(self) -> float:
        """Seconds that a frame is shown: the world's pace, or slow motion if it cannot keep up."""
        own, typical = 1 / self.fps, self.latency(50)
        if typical is None or len(self._seconds) < self.config.warm_up:
            return own
        needed = 1.03 * typical / self.frames_per_chunk
        return needed if own < needed <= self.config.slow_motion * own else own


class ShownRate:
    """Frames a second that were really shown, over a sliding window."""

    def __init__(self, window: float = 2.0) -> None:
        """``window`` in seconds."""
        self.window = window
        self._times: deque[float] = deque()

    def shown(self, now: float) -> None:
        """A new frame was put on the screen."""
        self._times.append(now)

    def fps(self, now: float) -> float:
        """Frames of the last window, per second."""
        while self._times and self._times[0] <= now - self.window:
            self._times.popleft()
        return len(self._times) / self.window


class CommandDelay:
    """Seconds from a command to the first picture that it shaped."""

    def __init__(self, kept: int = 32) -> None:
        """Nothing measured yet."""
        self._given: tuple[str, float] | None = None
        self._delays: deque[float] = deque(maxlen=kept)
        self._count = 0

    def given(self, command: str, now: float) -> None:
        """The person gave a command."""
        if self._given is None or self._given[0] != command:
            self._given = (command, now)

    def forget(self) -> None:
        """Time stood still or was turned back: what waits cannot be measured."""
        self._given = None

    @property
    def count(self) -> int:
        """How many delays were measured."""
        return self._count

    @property
    def waiting(self) -> bool:
        """Whether a command was given that no picture has shown yet."""
        return self._given is not None

    def shown(self, command: str, now: float) -> None:
        """The first frame of a chunk under this command is on the screen."""
        if self._given is not None and self._given[0] == command:
            self._delays.append(now - self._given[1])
            self._count += 1
            self._given = None

    @property
    def last(self) -> float | None:
        """The newest delay."""
        return self._delays[-1] if self._delays else None

    @property
    def median(self) -> float | None:
        """The median of the last delays."""
        return float(np.median(self._delays)) if self._delays else None
