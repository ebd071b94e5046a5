"""Frames as a browser reads them: JPEG or WebP, one frame or a strip of futures side by side.

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

import io
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image

from magi_world.demos.server.config import Format

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
        """The whole message."""
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
