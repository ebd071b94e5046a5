"""How often: a bucket that fills with time."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic


class TooFast(ValueError):
    """Over a limit. ``wait``: seconds after which it would be all right."""

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message)
        self.wait = wait


class Allowance:
    """At most ``rate`` a second in the long run; ``burst`` at once after a pause."""

    def __init__(
        self,
        what: str,
        rate: float | None,
        burst: float | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """``what`` is counted, as messages name it. ``rate`` None allows everything."""
        self._what, self._rate, self._clock = what, rate, clock
        self._burst = max(1.0, 2 * (rate or 0) if burst is None else burst)
        self._left, self._then = self._burst, clock()

    def take(self, count: int = 1) -> None:
        """Use some.

        Raises:
            TooFast: there are not so many; nothing was used.
        """
        if self._rate is None:
            return
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._then) * self._rate)
        self._then = now
        # More than fits at once is allowed from a full bucket, and paid back later.
        if self._left < min(count, self._burst):
            wait = (min(count, self._burst) - self._left) / self._rate
            raise TooFast(
                f"{self._what}: at most {self._rate:g} a second; wait {wait:.2f} seconds", wait
            )
        self._left -= count
