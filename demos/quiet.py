"""Silence for libraries that talk to the terminal behind Python's back."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """What C libraries write to standard error meanwhile is lost; errors come as exceptions.

    SDL looks for a display in several places, and the libraries of those it does not find say so.
    """
    try:
        sys.stderr.flush()
        kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except (OSError, AttributeError):
        yield  # there is no standard error to be silenced
        return
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
