"""The picture in time: which frame of which chunk is shown, and when the next chunk is needed.

Shapes: H, W pixels.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from magi_world.demos.window import jobs
from magi_world.demos.window.moment import Moment, Timeline
from magi_world.demos.window.pace import Pace


class Playback:
    """Plays the moments of a timeline. At most one chunk waits ahead of the one that is shown.

    A chunk that was asked for in a hurry, because a person said something else, does not wait for
    the end of the one that is shown: it comes at the next latent frame.

    waited: seconds that the picture has now stood still because the next chunk is not ready.
    """

    def __init__(self, pace: Pace, ring: int, frames_per_latent: int = 1) -> None:
        """Args:
        ring: chunks that rewinding can reach.
        frames_per_latent: video frames of a latent frame, where a chunk may be cut short.
        """
        self.pace = pace
        self.timeline = Timeline(ring)
        self.ahead: jobs.Stepped | None = None
        self.paused = False
        self._stepping: Literal["no", "wanted", "shown"] = "no"
        self._frames_per_latent = frames_per_latent
        self._hurry = False
        self._cut: float | None = None
        self._playhead = 0.0
        self._period = pace.period
        self.waited = 0.0

    @property
    def moment(self) -> Moment | None:
        """The chunk that is shown."""
        return self.timeline.current

    @property
    def frame_number(self) -> int:
        """Which frame of it."""
        if self.moment is None:
            return 0
        return min(int(self._playhead / self._period), len(self.moment.shown_frames) - 1)

    @property
    def frame(self) -> np.ndarray | None:
        """(H, W, 3) uint8: the picture."""
        return None if self.moment is None else self.moment.shown_frames[self.frame_number]

    @property
    def left(self) -> float:
        """Seconds until this chunk has been shown."""
        return self._length - self._playhead

    @property
    def running(self) -> bool:
        """Whether time passes."""
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
        patience = self.pace.config.patience
        return self.waited < patience and self.left + patience > self.pace.lead

    @property
    def due(self) -> bool:
        """Whether the next chunk must be asked for now."""
        wanted = self.running and self._stepping != "shown"
        ready = self.moment is None or self.ahead is not None
        return wanted and not ready and (self._hurry or self.left <= self.pace.lead)

    def hurry(self) -> None:
        """Ask for the next chunk at once, and show it as soon as a latent frame ends."""
        if self.running:
            self._hurry = True

    def begin(self, moment: Moment) -> None:
        """Forget what was, and show this."""
        self.timeline.clear()
        self.ahead = None
        self._show(moment, 0.0)

    def advance(self, seconds: float) -> jobs.Stepped | None:
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
        """Stop, or go on."""
        self._hurry = False
        self.paused, self._stepping = on, "no"

    def step_once(self) -> None:
        """Play to the end of the next chunk, then stop."""
        self.paused, self._stepping = True, "wanted"

    def rewind(self, chunks: int) -> bool:
        """Stop at the end of the chunk so many back (or ahead, if negative); whether it moved."""
        self.pause(True)
        self.ahead = None
        moved = self.timeline.move(-chunks)
        self._cut, self._playhead = None, self._length
        return moved

    def seek(self, position: int) -> bool:
        """`rewind` to a place in the timeline, 0 the oldest; whether it moved."""
        return self.rewind(self.timeline.position - position)

    def extend(self, moments: tuple[Moment, ...]) -> None:
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

    def _show(self, moment: Moment, playhead: float) -> None:
        self.timeline.append(moment)
        self.waited = 0.0
        self._hurry, self._cut = False, None
        self._playhead, self._period = playhead, self.pace.period
