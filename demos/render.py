"""From chunks to finished pictures: enlarged, forks side by side, words burned in on request.

Shapes: n futures, T video frames, H, W pixels of the finished picture. Frames are uint8 RGB.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from magi_world.config import require
from magi_world.io.media import Size, enlarge
from magi_world.session.events import Event, Fork, Note
from magi_world.world.chunk import Chunk

MIN_TEXT = 11  # pixels; below that no letter can be told from another
LINES_A_PICTURE = 22  # the height of a line of text, as a share of the picture
_BAND = (0, 0, 0, 150)
_WHITE, _FRESH, _DIM = (255, 255, 255, 255), (255, 214, 92, 255), (200, 200, 200, 255)


@dataclass(frozen=True)
class Caption:
    """What is written on a chunk.

    text: at the bottom, e.g. the command.    fresh: it is new with this chunk; coloured.
    corner: at the bottom right, e.g. the chunk's index.    note: at the top.
    """

    text: str = ""
    corner: str = ""
    note: str = ""
    fresh: bool = False


def draw_caption(frames: np.ndarray, caption: Caption) -> np.ndarray:
    """The frames (T, H, W, 3) with the words on them."""
    colour, cover = _layer(caption, frames.shape[1:3])
    rows = np.flatnonzero(cover.max((1, 2)))
    made = frames.copy()
    # The bands at the top and at the bottom; the picture between them is left alone.
    for band in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if len(rows) else ():
        part = slice(band[0], band[-1] + 1)
        shown = frames[:, part].astype(np.uint16)
        # Whole numbers throughout, so that every machine rounds alike.
        mixed = (shown * (255 - cover[part]) + colour[part] * cover[part] + 127) // 255
        made[:, part] = mixed.astype(np.uint8)
    return made


@lru_cache(maxsize=8)
def _layer(caption: Caption, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Colour (H, W, 3) and cover (H, W, 1), 0 .. 255, uint16."""
    height, width = size
    layer = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    points = max(MIN_TEXT, height // LINES_A_PICTURE)
    font = ImageFont.load_default(points)
    pad = points // 2
    band = points + 2 * pad
    if caption.note:
        pen.rectangle((0, 0, width, band), fill=_BAND)
        note = _fitting(caption.note, font, width - 2 * pad)
        pen.text((pad, band // 2), note, _WHITE, font, anchor="lm")
    if caption.text or caption.corner:
        pen.rectangle((0, height - band, width, height), fill=_BAND)
        middle = height - band // 2
        room = width - 2 * pad
        if caption.corner:
            pen.text((width - pad, middle), caption.corner, _DIM, font, anchor="rm")
            room -= int(font.getlength(caption.corner)) + pad
        colour = _FRESH if caption.fresh else _WHITE
        pen.text((pad, middle), _fitting(caption.text, font, room), colour, font, anchor="lm")
    pixels = np.asarray(layer).astype(np.uint16)
    return pixels[..., :3], pixels[..., 3:]


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int) -> str:
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "...") > room:
        text = text[:-1]
    return text.rstrip() + "..."


MIN_LINES = 384
# Seconds that a note stands, and that it stands at least where another one waits.
NOTE_SECONDS, NOTE_LEAST = 4.0, 1.5


@dataclass(frozen=True)
class PictureConfig:
    """How chunks become pictures.

    upscale: whole factor by which the picture grows; None takes the smallest that gives
        ``MIN_LINES`` lines and divides among the futures of a fork.
    captions: burn in the command, the chunk's index and the script's notes.
    smooth: enlarge by Lanczos, as the window does; else every pixel is repeated.
    """

    upscale: int | None = None
    captions: bool = False
    smooth: bool = False

    def __post_init__(self) -> None:
        require(
            self.upscale is None or 1 <= self.upscale <= 64,
            f"upscale is {self.upscale}; it must be a whole number from 1 to 64",
        )


class Painter:
    """Paints the chunks of one film, all at one size."""

    def __init__(
        self, frame_size: Size, config: PictureConfig, events: Sequence[Event], fps: float = 18.0
    ) -> None:
        """``events`` are all that will happen; forks among them decide the factor."""
        self.frame_size, self.config, self.fps = frame_size, config, fps
        self.factor = config.upscale or _factor(frame_size[0], events)
        self._said = ""
        self._note, self._note_frames = "", 0
        self._notes: deque[str] = deque()

    @property
    def size(self) -> Size:
        """(height, width) of the pictures."""
        return self.frame_size[0] * self.factor, self.frame_size[1] * self.factor

    def remark(self, event: Event) -> None:
        """A note stands for some seconds; one that comes meanwhile waits until it was read."""
        if isinstance(event, Note):
            self._notes.append(event.text)

    def paint(self, chunk: Chunk) -> np.ndarray:
        """The finished frames (T, H, W, 3); frames that only repeat a start are left out."""
        frames = chunk.frames[:, chunk.skip[0] :]
        self._turn_note()
        self._note_frames += frames.shape[1]
        count = len(frames)
        if count == 1:
            return self._captioned(_resized(frames[0], self.size, self.config.smooth), chunk)
        columns = math.ceil(math.sqrt(count))
        rows = math.ceil(count / columns)
        height, width = self.size
        picture = np.zeros((frames.shape[1], height, width, 3), np.uint8)
        cell = height // columns, width // columns
        top = (height - rows * cell[0]) // 2
        for i, future in enumerate(frames):
            y, x = top + i // columns * cell[0], i % columns * cell[1]
            shown = _resized(future, cell, self.config.smooth)
            if self.config.captions:
                shown = draw_caption(shown, Caption(chunk.prompts[i]))
            picture[:, y : y + cell[0], x : x + cell[1]] = shown
        # One dark pixel of each neighbour, so that alike futures do not run into one another.
        for row in range(1, rows):
            picture[:, top + row * cell[0] - 1 : top + row * cell[0] + 1] = 0
        for column in range(1, columns):
            picture[:, :, column * cell[1] - 1 : column * cell[1] + 1] = 0
        if self.config.captions and self._note:
            picture = draw_caption(picture, Caption(note=self._note))
        return picture

    def _turn_note(self) -> None:
        """Take the note away, or put up the next one, where its time has come."""
        shown = self._note_frames / self.fps
        if not self._note or shown >= (NOTE_LEAST if self._notes else NOTE_SECONDS):
            self._note = self._notes.popleft() if self._notes else ""
            self._note_frames = 0

    def _captioned(self, frames: np.ndarray, chunk: Chunk) -> np.ndarray:
        if not self.config.captions:
            return frames
        said, index, lands = chunk.prompts[0], chunk.index[0], chunk.lands[0]
        waits = f" (from chunk {lands})" if lands > index else ""
        fresh = said != self._said and index > 0
        self._said = said
        return draw_caption(frames, Caption(said + waits, str(index), self._note, fresh))


def _factor(height: int, events: Sequence[Event]) -> int:
    """So many futures abreast must divide it, where it is more than one."""
    factor = max(1, -(-MIN_LINES // height))
    abreast = [math.ceil(math.sqrt(e.futures)) for e in events if isinstance(e, Fork)]
    whole = math.lcm(*abreast) if abreast else 1
    return factor if factor == 1 or whole > 4 else -(-factor // whole) * whole


def _resized(frames: np.ndarray, size: Size, smooth: bool) -> np.ndarray:
    height, width = frames.shape[1:3]
    if size == (height, width):
        return frames
    if not smooth and size[0] % height == 0 and size[1] == width * (size[0] // height):
        return enlarge(frames, size[0] // height)
    large = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    how = Image.Resampling.BOX if size[0] < height else large
    return np.stack([np.asarray(Image.fromarray(f).resize(size[::-1], how)) for f in frames])
