"""Stopping a long job: the first signal asks, the second insists."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType


class Stopped(Exception):
    """The run was asked to stop; its checkpoint is written."""


@contextmanager
def clean_stop() -> Iterator[Callable[[], bool]]:
    """Inside, SIGINT and SIGTERM only raise a flag, which the yielded function reads.

    A second signal does not wait for the step to end: it raises KeyboardInterrupt, and what was
    done since the last checkpoint is lost.
    """
    asked: list[int] = []
    before: dict[signal.Signals, object] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        # Only os.write is safe here: the signal may come in the middle of a print.
        os.write(2, b"\nstopping after this step; once more stops at once\n")

    with suppress(ValueError):  # not in the main thread: signals stay as they are
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
