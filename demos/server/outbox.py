"""What waits to be sent to one browser. A slow one misses frames; it never makes anybody wait."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

from magi_world.demos.server.pictures import PictureHeader

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
        """A message of this kind."""
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
