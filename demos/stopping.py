"""Stopping a long job well: the first Ctrl-C asks, the second insists."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """Somebody asked the job to stop."""


class StopRequest:
    """Within its ``with`` block, Ctrl-C (or a plain `kill`) sets `wanted` and nothing else.

    The second one has its usual effect.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._before: dict[signal.Signals, Any] = {}

    def check(self) -> None:
        """Raise `Stopped` if a stop is wanted."""
        if self.wanted:
            raise Stopped

    def __enter__(self) -> StopRequest:
        # Python lets only the main thread say what a signal does.
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._ask) for s in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.wanted = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
