"""The picture in time: which frame of which chunk is shown, and when the next chunk is needed.

Shapes: H, W pixels.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Literal

import numpy as np

from magi_world.demos.timeline import Timeline
from magi_world.demos.window import jobs

KEPT, WARM_UP = 64, 2  # chunk times remembered, and how many there must be to be trusted
MARGIN = 0.03  # seconds by which a chunk should be ready before it is shown
PATIENCE = 0.12  # seconds that the picture may stand still so that a command lands a chunk earlier
SLOW_MOTION = 2.0  # up to this factor a world that is too slow is shown slower, not in jerks


class Pace:
    """Learns how long chunks take, and from that when and how fast things must happen."""

    def __init__(self, fps: float, frames_per_chunk: int) -> None:
        """``fps`` is the world's own pace."""
        self.fps, self.frames_per_chunk = fps, frames_per_chunk
        self._seconds: deque[float] = deque(maxlen=KEPT)

    def made(self, seconds: float) -> None:
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
        if slow is None or len(self._seconds) < WARM_UP:
            return float("inf")
        return slow * 1.1 + MARGIN

    @property
    def period(self) -> float:
        """Seconds that a frame is shown: the world's pace, or slow motion if it cannot keep up."""
        own, typical = 1 / self.fps, self.latency(50)
        if typical is None or len(self._seconds) < WARM_UP:
            return own
        needed = 1.03 * typical / self.frames_per_chunk
        return needed if own < needed <= SLOW_MOTION * own else own


WINDOW = 2.0  # seconds
FLASH = 1.2  # seconds that an event is shown
DELAYS = 32  # the newest


class ShownRate:
    """Frames a second that were really shown, over a sliding window."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()
        self._last: object = None

    def shown(self, frame: object, now: float) -> None:
        """``frame`` is on show now; it counts once for as long as it stays."""
        if frame != self._last:
            self._last = frame
            self._times.append(now)

    def fps(self, now: float) -> float:
        while self._times and self._times[0] <= now - WINDOW:
            self._times.popleft()
        return len(self._times) / WINDOW


class CommandDelay:
    """Seconds from a command to the first picture that it shaped."""

    def __init__(self) -> None:
        self._given: tuple[str, float] | None = None
        self._delays: deque[float] = deque(maxlen=DELAYS)
        self._count = 0

    def given(self, command: str, now: float) -> None:
        if self._given is None or self._given[0] != command:
            self._given = (command, now)

    def forget(self) -> None:
        """Time stood still or was turned back: what waits cannot be measured."""
        self._given = None

    @property
    def count(self) -> int:
        return self._count

    @property
    def waiting(self) -> bool:
        return self._given is not None

    def shown(self, command: str, now: float) -> None:
        """The first frame of a chunk under this command is on the screen."""
        if self._given is not None and self._given[0] == command:
            self._delays.append(now - self._given[1])
            self._count += 1
            self._given = None

    @property
    def last(self) -> float | None:
        return self._delays[-1] if self._delays else None

    @property
    def median(self) -> float | None:
        return float(np.median(self._delays)) if self._delays else None


class Flashes:
    """What has just happened, for as long as it is worth a look."""

    def __init__(self) -> None:
        self._shown: list[tuple[str, float]] = []

    def add(self, event: str, now: float) -> None:
        self._shown.append((event, now))

    def current(self, now: float) -> list[tuple[str, float]]:
        """(event, age from 0 to 1), the oldest first."""
        self._shown = [(e, t) for e, t in self._shown if now - t < FLASH]
        return [(e, (now - t) / FLASH) for e, t in self._shown]


class Playback:
    """Plays the moments of a timeline. At most one chunk waits ahead of the one that is shown.

    A chunk that was asked for in a hurry, because a person said something else, does not wait for
    the end of the one that is shown: it comes at the next latent frame.

    waited: seconds that the picture has now stood still because the next chunk is not ready.
    resting: whether it is paused because nobody has said anything for a while.
    """

    def __init__(self, pace: Pace, ring: int, frames_per_latent: int = 1) -> None:
        """Args:
        ring: chunks that rewinding can reach.
        frames_per_latent: video frames of a latent frame, where a chunk may be cut short.
        """
        self.pace = pace
        self.timeline: Timeline[np.ndarray] = Timeline(ring)
        self.ahead: jobs.Done | None = None
        self.paused = self.resting = False
        self._idle = 0.0
        self._stepping: Literal["no", "wanted", "shown"] = "no"
        self._frames_per_latent = frames_per_latent
        self._hurry = False
        self._cut: float | None = None
        self._playhead = 0.0
        self._period = pace.period
        self.waited = 0.0

    @property
    def moment(self) -> jobs.Moment | None:
        return self.timeline.current

    @property
    def frame_number(self) -> int:
        if self.moment is None:
            return 0
        return min(int(self._playhead / self._period), len(self.moment.shown_frames) - 1)

    @property
    def frame(self) -> np.ndarray | None:
        """(H, W, 3) uint8: the picture."""
        return None if self.moment is None else self.moment.shown_frames[self.frame_number]

    @property
    def left(self) -> float:
        return self._length - self._playhead

    @property
    def running(self) -> bool:
        return not self.paused or self._stepping != "no"

    @property
    def stalled(self) -> bool:
        """Whether the picture stands still because the next chunk is not ready."""
        return self.running and self.moment is not None and self.left <= 0 and self.ahead is None

    @property
    def early(self) -> bool:
        """Whether there is time to make the next chunk anew, with hardly a wait for it."""
        if not self.running:
            return True
        return self.waited < PATIENCE and self.left + PATIENCE > self.pace.lead

    @property
    def due(self) -> bool:
        wanted = self.running and self._stepping != "shown"
        ready = self.moment is None or self.ahead is not None
        return wanted and not ready and (self._hurry or self.left <= self.pace.lead)

    def hurry(self) -> None:
        """Ask for the next chunk at once, and show it as soon as a latent frame ends."""
        if self.running:
            self._hurry = True

    def begin(self, moments: Sequence[jobs.Moment]) -> None:
        """Show the last of these; the others are what came before it."""
        self.timeline.clear()
        self.ahead = None
        for moment in moments:
            self._show(moment, 0.0)

    def advance(self, seconds: float) -> jobs.Done | None:
        """Time passes; the chunk that has just begun to be shown, if one has."""
        if not self.running or self.moment is None:
            return None
        if self._hurry and self.ahead is not None and self._stepping == "no":
            self._hurry, self._cut = False, self._next_latent()
        self._playhead += seconds
        self.waited = self.waited + seconds if self.stalled else 0.0
        if self.left > 0:
            return None
        if self._stepping == "shown":
            self._stepping, self._playhead = "no", self._length
            return None
        if self.ahead is None:
            self._playhead = self._length
            return None
        stepped, self.ahead = self.ahead, None
        late = -self.left
        # A short wait is made up for, a long one is not: the picture never rushes.
        self._show(stepped.moment, late if late < self._period else 0.0)
        if self._stepping == "wanted":
            self._stepping = "shown"
        return stepped

    def pause(self, on: bool) -> None:
        self._hurry = self.resting = False
        self._idle = 0.0
        self.paused, self._stepping = on, "no"

    def idle(self, seconds: float, patience: float) -> bool:
        """Nobody says anything; whether the picture now rests, which it does after ``patience``
        seconds of that (0 = never). What was made ahead is dropped: the next word shapes the very
        next chunk."""
        self._idle += seconds if self.running else -self._idle
        if not 0 < patience <= self._idle:
            return False
        self.pause(True)
        self.ahead, self.resting = None, True
        return True

    def wake(self) -> None:
        """Somebody says something."""
        self._idle = 0.0
        if self.resting:
            self.pause(False)

    def step_once(self) -> None:
        self.paused, self._stepping = True, "wanted"

    def rewind(self, chunks: int) -> bool:
        """Stop at the end of the chunk so many back (or ahead, if negative); whether it moved."""
        self.pause(True)
        self.ahead = None
        moved = self.timeline.move(-chunks)
        self._cut, self._playhead = None, self._length
        return moved

    def extend(self, moments: tuple[jobs.Moment, ...]) -> None:
        """Go on from the end of these; they were seen already."""
        for moment in moments:
            self._show(moment, 0.0)
        self.ahead = None
        self._playhead = self._length

    @property
    def _length(self) -> float:
        if self.moment is None:
            return 0.0
        whole = len(self.moment.shown_frames) * self._period
        return whole if self._cut is None else min(self._cut, whole)

    def _next_latent(self) -> float:
        """Seconds of the chunk that is shown at which its next latent frame begins."""
        assert self.moment is not None, "something is shown"
        hidden = len(self.moment.frames) - len(self.moment.shown_frames)
        frame = math.ceil(round(self._playhead / self._period, 6)) + hidden
        n = self._frames_per_latent
        return (-(-frame // n) * n - hidden) * self._period

    def _show(self, moment: jobs.Moment, playhead: float) -> None:
        self.timeline.append(moment)
        self.waited = 0.0
        self._hurry, self._cut = False, None
        self._playhead, self._period = playhead, self.pace.period
