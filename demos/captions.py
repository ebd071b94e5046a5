"""Words burned into a picture: the command of the chunk, and what the script remarks.

Shapes: T video frames, H, W pixels of the finished picture. Frames are uint8 RGB.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

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
    """The text, its end cut off where it does not fit."""
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "...") > room:
        text = text[:-1]
    return text.rstrip() + "..."
