"""Frames as a browser reads them, what waits to be sent, and the way that a visitor came as a film.

A picture goes over the wire as one binary message: a header of 12 bytes, then the file.

    byte 0      0 for the world, 1 for a strip of futures
    byte 1      number of the frame in its chunk
    byte 2      number of futures in the strip, 1 for the world
    byte 3      1 where the picture was asked for (rewind, pause), 0 where it is played
    bytes 4-7   index of the chunk, big endian
    bytes 8-11  number of the message, big endian; gaps are frames that were dropped

Shapes: n futures, T video frames, H, W pixels.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import struct
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from magi_world.demos.render import Caption, draw_caption
from magi_world.demos.server.config import Format
from magi_world.demos.timeline import Moment
from magi_world.io.media import VideoConfig, VideoWriter, enlarge
from magi_world.world.snapshot import Snapshot

HEADER = struct.Struct(">BBBBII")


@dataclass(frozen=True)
class PictureHeader:
    """The head of a picture message."""

    chunk: int
    frame: int
    futures: int = 1
    strip: bool = False
    still: bool = False

    def pack(self, number: int, picture: bytes) -> bytes:
        kind, number = int(self.strip), number & 0xFFFFFFFF
        head = (kind, self.frame, self.futures, int(self.still), self.chunk, number)
        return HEADER.pack(*head) + picture


def encode(frames: np.ndarray, form: Format, quality: int) -> list[bytes]:
    """Each frame of (T, H, W, 3) uint8 as a file."""
    return [_encode(frame, form, quality) for frame in frames]


def strips(frames: np.ndarray) -> np.ndarray:
    """Futures (n, T, H, W, 3) side by side: (T, H, n * W, 3)."""
    n, count, height, width, _ = frames.shape
    return frames.transpose(1, 2, 0, 3, 4).reshape(count, height, n * width, 3)


def decode(picture: bytes) -> np.ndarray:
    """(H, W, 3) uint8 of a file."""
    with Image.open(io.BytesIO(picture)) as image:
        return np.array(image.convert("RGB"))


def _encode(frame: np.ndarray, form: Format, quality: int) -> bytes:
    file, image = io.BytesIO(), Image.fromarray(frame)
    if form == "jpeg":
        # Full colour: the pictures are small, and halved colour shows when they are enlarged.
        image.save(file, "JPEG", quality=quality, subsampling=0)
    else:
        image.save(file, "WEBP", quality=quality, method=2)
    return file.getvalue()


MESSAGES_KEPT = 256


class Outbox:
    """Messages in order, and at most one frame: a newer frame takes the place of one not sent."""

    def __init__(self) -> None:
        self.sent = self.dropped = 0
        self.overrun = False
        self._messages: deque[str] = deque()
        self._still: bytes | None = None
        self._frame: bytes | None = None
        self._news = asyncio.Event()
        self._number = 0

    def say(self, kind: str, **fields: Any) -> None:
        self._messages.append(json.dumps({"type": kind, **fields}, ensure_ascii=False))
        # Somebody who reads nothing at all must not fill our memory.
        self.overrun = self.overrun or len(self._messages) > MESSAGES_KEPT
        self._news.set()

    def show(self, header: PictureHeader, picture: bytes) -> None:
        """A frame; one that still waits is dropped. A still is never dropped for a played one."""
        packed = header.pack(self._number, picture)
        self._number += 1
        if header.still:
            self._still = packed
            if self._frame is not None:
                self.dropped += 1
            self._frame = None
        else:
            self.dropped += self._frame is not None
            self._frame = packed
        self._news.set()

    async def next(self) -> str | bytes:
        """The next thing to send; waits for it."""
        while True:
            if self._messages:
                return self._messages.popleft()
            if self._still is not None:
                packed, self._still = self._still, None
                self.sent += 1
                return packed
            if self._frame is not None:
                packed, self._frame = self._frame, None
                self.sent += 1
                return packed
            self._news.clear()
            await self._news.wait()


@dataclass(frozen=True)
class _Piece:
    """Where the frames of a chunk lie in the file: (offset, length) each."""

    index: int
    command: str
    frames: tuple[tuple[int, int], ...]


JOURNEY_BYTES = 64 * 2**20  # of pictures on disk; the oldest chunks go first


class Journey:
    """Chunks from the reset to now. A rewind cuts it, so the film shows one unbroken way."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="magi-world-journey-")  # noqa: SIM115
        self._pieces: list[_Piece] = []
        self._end = 0

    def __len__(self) -> int:
        return len(self._pieces)

    def clear(self) -> None:
        self._file.truncate(0)
        self._pieces, self._end = [], 0

    def add(self, moment: Moment[tuple[bytes, ...]]) -> None:
        """A chunk was made; chunks of the same index or later are no longer part of the way."""
        while self._pieces and self._pieces[-1].index >= moment.index:
            gone = self._pieces.pop()
            self._end = gone.frames[0][0]
        places = []
        self._file.seek(self._end)
        for picture in moment.shown_frames:
            self._file.write(picture)
            places.append((self._end, len(picture)))
            self._end += len(picture)
        self._pieces.append(_Piece(moment.index, moment.command, tuple(places)))
        if self._end > JOURNEY_BYTES:
            self._halve()

    def copy(self) -> list[tuple[str, list[bytes]]]:
        """(command, pictures) of every chunk; a film can be made of it while play goes on."""
        return [(p.command, [self._read(*place) for place in p.frames]) for p in self._pieces]

    def close(self) -> None:
        self._file.close()

    def _halve(self) -> None:
        kept = self._pieces[len(self._pieces) // 2 :]
        content = [(p, [self._read(*place) for place in p.frames]) for p in kept]
        self.clear()
        for piece, pictures in content:
            places = []
            for picture in pictures:
                self._file.write(picture)
                places.append((self._end, len(picture)))
                self._end += len(picture)
            self._pieces.append(_Piece(piece.index, piece.command, tuple(places)))

    def _read(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(length)


def write_film(
    path: Path,
    chunks: list[tuple[str, list[bytes]]],
    fps: float,
    captions: bool = True,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """An MP4 of the pictures, with the commands written at the bottom.
    Raises ValueError: there is nothing to show.
    """
    if not chunks:
        raise ValueError("nothing has been played yet, so there is no film")
    height, width = decode(chunks[0][1][0]).shape[:2]
    factor = max(1, -(-384 // height))
    config = VideoConfig(fps, (height * factor, width * factor), upscale=1)
    said = ""
    with VideoWriter(path, config) as writer:
        for command, pictures in chunks:
            if stopped():
                return
            frames = np.stack([enlarge(decode(picture), factor) for picture in pictures])
            if captions and command:
                frames = draw_caption(frames, Caption(command, fresh=command != said))
            said = command
            writer.write(frames)


SLOTS = (1, 2, 3, 4)
_KEY = re.compile(r"[0-9a-f]{16,64}")


def check_key(key: str) -> str:
    """The key under which a browser keeps its moments; it becomes the name of a folder.
    Raises ValueError: it is not 16 to 64 hexadecimal digits.
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
        return [slot for slot in SLOTS if self.path(slot).is_file()]

    def path(self, slot: int) -> Path:
        """The file of a slot. Raises ValueError: there is no such slot."""
        if slot not in SLOTS:
            raise ValueError(f"slot is {slot!r}; it must be one of {SLOTS[0]} .. {SLOTS[-1]}")
        return self._folder / f"slot-{slot}.safetensors"

    def picture(self, slot: int) -> bytes | None:
        path = self.path(slot).with_suffix(".picture")
        return path.read_bytes() if path.is_file() else None

    def save(self, slot: int, state: Snapshot, picture: bytes) -> None:
        path = self.path(slot)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(picture)
        # The picture first: a moment without one could not be gone back to.
        os.replace(part, path.with_suffix(".picture"))
        state.save(path)

    def load(self, slot: int) -> Snapshot:
        """Read a moment. Raises ValueError: the slot is empty, or its file is damaged."""
        path = self.path(slot)
        if not path.is_file():
            raise ValueError(f"slot {slot} is empty; save a moment there first")
        return Snapshot.load(path)
