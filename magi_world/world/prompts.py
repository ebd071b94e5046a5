"""Prompts as the transformer reads them, each encoded once."""

from __future__ import annotations

from collections import OrderedDict

from magi_world.model.text import TextEncoder
from magi_world.sampling.captions import TextKeys
from magi_world.sampling.stream import ChunkStream

PROMPTS_KEPT = 32


class PromptKeys:
    """Text keys of the last few prompts; the least recently used one is forgotten first."""

    def __init__(self, stream: ChunkStream, encoder: TextEncoder) -> None:
        self._stream, self._encoder = stream, encoder
        self._kept: OrderedDict[str, TextKeys] = OrderedDict()

    def __call__(self, text: str) -> TextKeys:
        """Keys of a caption; the empty one is the null caption."""
        if text not in self._kept:
            self._kept[text] = self._stream.caption(self._encoder.encode(text) if text else None)
        self._kept.move_to_end(text)
        if len(self._kept) > PROMPTS_KEPT:
            self._kept.popitem(last=False)
        return self._kept[text]
