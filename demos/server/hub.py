"""Everybody who is here: browsers and programs, how many there may be, and when they must go."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from time import monotonic

from magi_world.demos.server.batching import Served
from magi_world.demos.server.config import ServeConfig
from magi_world.demos.server.visitor import Visitor

_VISIT = re.compile(r"[0-9a-f]{16,64}")


class Full(ValueError):
    """There is no place left."""


class Hub:
    """The worlds of the server and its visitors."""

    def __init__(self, worlds: Mapping[str, Served], config: ServeConfig) -> None:
        """``worlds``: name -> world, the first one is opened by default.
        Raises ValueError: no world.
        """
        if not worlds:
            raise ValueError("worlds is empty; a server needs at least one")
        self.worlds, self.config = dict(worlds), config
        self.video = False  # whether pictures can come as H.264 as well
        self.visitors: dict[str, Visitor] = {}
        self.programs: set[object] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def count(self) -> int:
        return len(self.visitors) + len(self.programs)

    def world(self, name: str | None) -> Served:
        """The world of this name; the default one without a name.
        Raises ValueError: it is not served here.
        """
        if name is None or name == "":
            return next(iter(self.worlds.values()))
        if name not in self.worlds:
            known = ", ".join(self.worlds)
            raise ValueError(f"world is {name[:80]!r}; this server has {known}")
        return self.worlds[name]

    def visitor(self, visit: str, key: str, world: str | None) -> Visitor:
        """The visitor who comes back, or a new one.

        Raises:
            Full: there is no place left.
            ValueError: an identifier of the wrong form, or an unknown world.
        """
        if not _VISIT.fullmatch(visit):
            raise ValueError(f"visit is {visit[:80]!r}; it must be 16 to 64 digits 0-9 and a-f")
        if visit in self.visitors:
            return self.visitors[visit]
        served = self.world(world)
        self._make_room()
        visitor = Visitor(visit, key, served, self.config)
        self.visitors[visit] = visitor
        self._tasks[visit] = asyncio.create_task(visitor.run(), name=f"visitor {visit[:6]}")
        return visitor

    def enter(self, program: object) -> None:
        """A program takes a place. Raises Full: there is none left."""
        self._make_room()
        self.programs.add(program)

    def leave(self, program: object) -> None:
        self.programs.discard(program)

    async def remove(self, visitor: Visitor) -> None:
        if self.visitors.get(visitor.visit) is not visitor:
            return
        del self.visitors[visitor.visit]
        task = self._tasks.pop(visitor.visit)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        visitor.close()

    async def sweep(self) -> None:
        """Every few seconds: those who went away and did not come back are forgotten."""
        while True:
            await asyncio.sleep(min(5.0, self.config.limits.away / 2))
            now = monotonic()
            for visitor in list(self.visitors.values()):
                if not visitor.connected and now - visitor.seen > self.config.limits.away:
                    await self.remove(visitor)

    async def close(self) -> None:
        for visitor in list(self.visitors.values()):
            await self.remove(visitor)
        for served in self.worlds.values():
            await asyncio.to_thread(served.close)

    def _make_room(self) -> None:
        if self.count < self.config.limits.visitors:
            return
        away = [v for v in self.visitors.values() if not v.connected]
        if not away:
            most = self.config.limits.visitors
            raise Full(f"all {most} places of this server are taken; try again in a while")
        # Whoever has been away longest loses the place; the session file stays.
        longest = min(away, key=lambda v: v.seen)
        del self.visitors[longest.visit]
        self._tasks.pop(longest.visit).cancel()
        longest.close()
