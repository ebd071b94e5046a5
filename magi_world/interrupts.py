"""Ctrl-C asks a long job to stop well. What may not be cut in two waits (`sampling.stream`)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType


class Stopped(Exception):
    """Somebody asked a job to stop; what it has done is kept."""


@contextmanager
def clean_stop(
    told: str = "stopping after this step; once more stops at once",
) -> Iterator[Callable[[], bool]]:
    """Inside, SIGINT and SIGTERM only raise a flag, which the yielded function reads.

    A second signal waits for nothing: it raises KeyboardInterrupt, and what was done since the
    last checkpoint is lost.    told: to stderr, at the first one.
    """
    asked: list[int] = []
    before: dict[signal.Signals, object] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        # Only os.write is safe here: the signal may come in the middle of a print.
        os.write(2, f"\n{told}\n".encode())

    with suppress(ValueError):  # not in the main thread: signals stay as they are
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
