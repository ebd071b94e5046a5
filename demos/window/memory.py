"""How much memory the process has, and giving back what it does not use."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path


def resident() -> int | None:
    """Bytes of this process in memory; on macOS the most there have been, on Windows unknown."""
    status = Path("/proc/self/statm")
    if not status.exists() and sys.platform != "darwin":
        return None
    import resource

    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def give_back() -> None:
    """Hand free memory to the system, where the C library can (glibc); a few milliseconds.

    Every snapshot that is kept lies between short-lived tensors, and glibc keeps the holes: without
    this the shipped world takes 4 MB a chunk instead of the one that a snapshot has.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
