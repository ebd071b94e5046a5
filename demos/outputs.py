"""Where a film goes: MP4, GIF or a contact sheet, by the ending of the file.

Shapes: T video frames, H, W pixels. Frames are uint8 RGB.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from magi_world.config import require
from magi_world.io.files import replacing
from magi_world.io.media import Size, VideoConfig, VideoWriter

ENDINGS = (".mp4", ".gif", ".png")
SHEET_CELLS = 24
SHEET_COLUMNS = 4
SHEET_WIDTH = 1600
GIF_COLOURS = 64
# What other programs show: delays under two hundredths are played slowly.
GIF_SHORTEST = 20


class Output(Protocol):
    """Takes finished frames one chunk after the other."""

    def write(self, frames: np.ndarray) -> None:
        """The frames (T, H, W, 3) of a chunk."""

    def close(self) -> None:
        """Finish the file, whatever has come by then. A second call does nothing."""


def open_output(path: str | Path, size: Size, fps: float, chunks: int) -> Output:
    """The writer for a file.

    Args:
        size: (height, width) of the frames.
        chunks: how many calls of `write` there will be.

    Raises:
        ValueError: an ending that is not known.
    """
    path = Path(path)
    ending = check_ending(path)
    if ending == ".mp4":
        return VideoWriter(path, VideoConfig(fps, size, upscale=1))
    return Gif(path, fps) if ending == ".gif" else Sheet(path, chunks)


def check_ending(path: Path) -> str:
    """The ending of an output, if it is known. Raises ValueError: it is not."""
    ending = path.suffix.lower()
    require(ending in ENDINGS, f"output is {path}; it must end in {', '.join(ENDINGS)}")
    return ending


class Gif:
    """An endless GIF. It is written when it is closed, so a kill leaves nothing of it."""

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps = path, fps
        # Size, palette and indices, packed: a film of minutes would fill the memory otherwise.
        self._frames: list[tuple[tuple[int, int], list[int], bytes]] = []
        self._closed = False

    def write(self, frames: np.ndarray) -> None:
        for frame in frames:
            picture = Image.fromarray(frame).quantize(
                GIF_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
            )
            packed = zlib.compress(picture.tobytes(), 1)
            self._frames.append((picture.size, picture.getpalette() or [], packed))

    def close(self) -> None:
        if self._closed or not self._frames:
            return
        self._closed = True
        # Delays are whole hundredths of a second; the error is carried, so the pace is right.
        ends = [round((i + 1) * 100 / self.fps) * 10 for i in range(len(self._frames))]
        delays = [max(GIF_SHORTEST, b - a) for a, b in zip([0, *ends], ends, strict=False)]
        pictures = map(_unpacked, self._frames)
        with replacing(self.path) as part:
            next(pictures).save(
                part, "GIF", save_all=True, append_images=pictures, duration=delays, loop=0
            )


def _unpacked(frame: tuple[tuple[int, int], list[int], bytes]) -> Image.Image:
    size, palette, packed = frame
    picture = Image.frombytes("P", size, zlib.decompress(packed))
    picture.putpalette(palette)
    return picture


class Sheet:
    """A contact sheet: up to ``SHEET_CELLS`` pictures, evenly spread over the film."""

    def __init__(self, path: Path, chunks: int) -> None:
        self.path = path
        count = min(SHEET_CELLS, chunks)
        self._wanted = {round(i * (chunks - 1) / max(1, count - 1)) for i in range(count)}
        self._columns = min(SHEET_COLUMNS, len(self._wanted))
        self._cells: list[np.ndarray] = []
        self._seen = 0
        self._closed = False

    def write(self, frames: np.ndarray) -> None:
        if self._seen in self._wanted and len(frames):
            shrink = math.ceil(frames.shape[2] * self._columns / SHEET_WIDTH)
            picture = Image.fromarray(frames[-1])
            self._cells.append(np.asarray(picture.reduce(shrink)))
        self._seen += 1

    def close(self) -> None:
        if self._closed or not self._cells:
            return
        self._closed = True
        height, width = self._cells[0].shape[:2]
        rows = -(-len(self._cells) // self._columns)
        gap = 2
        sheet = np.full(
            (rows * (height + gap) - gap, self._columns * (width + gap) - gap, 3), 24, np.uint8
        )
        for i, cell in enumerate(self._cells):
            y, x = i // self._columns * (height + gap), i % self._columns * (width + gap)
            sheet[y : y + height, x : x + width] = cell
        with replacing(self.path) as part:
            Image.fromarray(sheet).save(part, "PNG")
