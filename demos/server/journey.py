"""The way that a visitor came, as pictures on disk, and the film that is made of them on request.

Shapes: H, W pixels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from magi_world.demos.captions import Caption, draw_caption
from magi_world.demos.server.past import Moment
from magi_world.demos.server.pictures import decode
from magi_world.io.media import VideoConfig, VideoWriter, enlarge


@dataclass(frozen=True)
class _Piece:
    """Where the frames of a chunk lie in the file: (offset, length) each."""

    index: int
    command: str
    frames: tuple[tuple[int, int], ...]


class Journey:
    """Chunks from the reset to now. A rewind cuts it, so the film shows one unbroken way."""

    def __init__(self, most_bytes: int = 64 * 2**20) -> None:
        """``most_bytes``: of pictures on disk; the oldest chunks go first."""
        self._most = most_bytes
        self._file = tempfile.TemporaryFile(prefix="magi-world-journey-")  # noqa: SIM115
        self._pieces: list[_Piece] = []
        self._end = 0

    def __len__(self) -> int:
        return len(self._pieces)

    def clear(self) -> None:
        """Begin anew."""
        self._file.truncate(0)
        self._pieces, self._end = [], 0

    def add(self, moment: Moment) -> None:
        """A chunk was made; chunks of the same index or later are no longer part of the way."""
        while self._pieces and self._pieces[-1].index >= moment.index:
            gone = self._pieces.pop()
            self._end = gone.frames[0][0]
        places = []
        self._file.seek(self._end)
        for picture in moment.shown:
            self._file.write(picture)
            places.append((self._end, len(picture)))
            self._end += len(picture)
        self._pieces.append(_Piece(moment.index, moment.command, tuple(places)))
        if self._end > self._most:
            self._halve()

    def copy(self) -> list[tuple[str, list[bytes]]]:
        """(command, pictures) of every chunk; a film can be made of it while play goes on."""
        return [(p.command, [self._read(*place) for place in p.frames]) for p in self._pieces]

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

    def _halve(self) -> None:
        """Drop the older half, so that this is done seldom."""
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

    Raises:
        ValueError: there is nothing to show.
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
