"""Saved moments of a visitor, as files that outlive the server."""

from __future__ import annotations

import os
import re
from pathlib import Path

from magi_world.world.snapshot import Snapshot

SLOTS = (1, 2, 3, 4)
_KEY = re.compile(r"[0-9a-f]{16,64}")


def check_key(key: str) -> str:
    """The key under which a browser keeps its moments; it becomes the name of a folder.

    Raises:
        ValueError: it is not 16 to 64 hexadecimal digits.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"key is {key[:80]!r}; it must be 16 to 64 of the digits 0-9 and a-f")
    return key


class Slots:
    """The slots of one visitor in one world."""

    def __init__(self, folder: Path, world: str, fingerprint: str, key: str) -> None:
        """``folder`` of all slots of the server."""
        self._folder = folder / check_key(key) / f"{Path(world).name}-{fingerprint[:8]}"

    @property
    def filled(self) -> list[int]:
        """Slots that hold a moment."""
        return [slot for slot in SLOTS if self.path(slot).is_file()]

    def path(self, slot: int) -> Path:
        """The file of a slot.

        Raises:
            ValueError: there is no such slot.
        """
        if slot not in SLOTS:
            raise ValueError(f"slot is {slot!r}; it must be one of {SLOTS[0]} .. {SLOTS[-1]}")
        return self._folder / f"slot-{slot}.safetensors"

    def picture(self, slot: int) -> bytes | None:
        """The picture of a slot."""
        path = self.path(slot).with_suffix(".picture")
        return path.read_bytes() if path.is_file() else None

    def save(self, slot: int, state: Snapshot, picture: bytes) -> None:
        """Write a moment, whole or not at all."""
        path = self.path(slot)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(picture)
        state.save(path)
        os.replace(part, path.with_suffix(".picture"))

    def load(self, slot: int) -> Snapshot:
        """Read a moment.

        Raises:
            ValueError: the slot is empty, or its file is damaged.
        """
        path = self.path(slot)
        if not path.is_file():
            raise ValueError(f"slot {slot} is empty; save a moment there first")
        return Snapshot.load(path)
