"""Files that are written whole or not at all, and folders that one process writes at a time."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A name beside ``path`` to write to; what was there is replaced when the block has ended well.

    Its folder is made. A block that fails leaves the older file, and nothing else.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Under another suffix: what a killed process leaves behind is no file of the kind.
    part = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(part, path)
    except OSError as error:
        if error.filename is not None or str(path) in str(error):
            raise
        why = error.strerror or str(error)
        raise OSError(error.errno, f"{path} cannot be written: {why}") from error
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Replace a UTF-8 file."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def only_one(lock: Path, what: str) -> Iterator[None]:
    """Inside, no other process is inside with the same lock file. It ends with the process.

    Args:
        what: is written by one process at a time, for the message.

    Raises:
        BlockingIOError: another process is inside.
    """
    held = FileLock(lock, timeout=0)
    try:
        held.acquire()
    except Timeout:
        raise BlockingIOError(
            errno.EWOULDBLOCK,
            f"{what} is being written by another process; wait for it, or choose another",
        ) from None
    try:
        yield
    finally:
        # While it is held, so that nobody else's is taken away.
        with suppress(OSError):
            lock.unlink()
        held.release()
