"""What a simulator leaves in the folder that it is started in, cleared away."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LITTER = ("_vizdoom", "_vizdoom.ini")  # ViZDoom's, whatever game it plays


@contextmanager
def no_litter(folder: Path) -> Iterator[None]:
    """Afterwards the folder has no such files, unless it had them before."""
    new = [folder / name for name in LITTER if not (folder / name).exists()]
    try:
        yield
    finally:
        for path in new:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
