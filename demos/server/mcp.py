"""The door for assistants: the world as tools of the Model Context Protocol, on /mcp."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from mcp.server.fastmcp import Context, FastMCP, Image
from mcp.server.transport_security import TransportSecuritySettings
from starlette.routing import BaseRoute

from magi_world.demos.server.hub import Hub
from magi_world.demos.server.programs import MOST_CHUNKS, SinglePlay, enlarged, png

Answer = list[str | Image]

INSTRUCTIONS = """\
A live video world that is dreamed chunk by chunk (about half a second each) and obeys text.
Call reset to begin, then step with what should happen; each answer has the picture that is seen at
the end. look shows the present picture again. fork tries several texts from the same moment and
shows where each leads; keep chooses one of them. rewind goes back. {known}"""


def mcp_door(hub: Hub) -> tuple[list[BaseRoute], Callable[[], AbstractAsyncContextManager[Any]]]:
    spec = hub.world(None).spec
    known = ", ".join(spec.command_names)
    server = FastMCP(
        "magi-world",
        log_level="WARNING",
        instructions=INSTRUCTIONS.format(known=f"The world knows: {known}." if known else ""),
        # Hosts, origins and the token have been checked before a request comes here.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        session_idle_timeout=hub.config.limits.idle,
    )
    plays: weakref.WeakKeyDictionary[Any, SinglePlay] = weakref.WeakKeyDictionary()

    def play(context: Context[Any, Any, Any]) -> SinglePlay:
        session = context.session
        if session not in plays:
            made = SinglePlay(hub.world(None), hub.config.limits)
            hub.enter(made)
            plays[session] = made
            weakref.finalize(session, hub.leave, made)
        return plays[session]

    @server.tool(structured_output=False)
    async def reset(
        context: Context[Any, Any, Any], seed: int | None = None, scene: str | None = None
    ) -> Answer:
        """Begin a new world. The same seed gives the same beginning; none gives a fresh one."""
        one = play(context)
        await one.reset(seed, scene)
        return _seen(one, f"a new world, seed {one.seed}")

    @server.tool(structured_output=False)
    async def step(context: Context[Any, Any, Any], text: str) -> Answer:
        """Say what should happen, and see what does.

        A plain command takes one chunk, about half a second; say "for 3 seconds" or "twice" for
        more, and "then" for several things in a row.
        """
        one = play(context)
        if not one.started:
            await one.reset()
        reading = await one.say(text)
        if not reading.obeyed:
            return _seen(one, f"nothing was done: {reading.answer}")
        chunks = sum(taken.chunks or 1 for taken in reading.steps)
        for _ in range(min(chunks, MOST_CHUNKS)):
            await one.step()
        left = "" if chunks <= MOST_CHUNKS else f"; {chunks - MOST_CHUNKS} chunks of it still wait"
        return _seen(one, f"understood as {reading.answer}{left}")

    @server.tool(structured_output=False)
    async def look(context: Context[Any, Any, Any]) -> Answer:
        """The picture that is seen now."""
        return _seen(play(context), "now")

    @server.tool(structured_output=False)
    async def fork(context: Context[Any, Any, Any], texts: list[str], chunks: int = 4) -> Answer:
        """Try 2 to 4 texts from this moment, and see where each of them leads after some chunks.

        The world stays where it is; keep(number) makes one of these futures real.
        """
        one = play(context)
        commands = await one.fork(texts, chunks)
        listed = ", ".join(f"{i + 1}: {name}" for i, name in enumerate(commands))
        picture = Image(data=png(one.futures(commands)), format="png")
        return [f"after {chunks} chunks: {listed}", picture]

    @server.tool(structured_output=False)
    async def keep(context: Context[Any, Any, Any], number: int) -> Answer:
        """Go on with one of the futures that fork showed, counted from 1."""
        one = play(context)
        one.keep(number)
        return _seen(one, f"future {number} goes on")

    @server.tool(structured_output=False)
    async def rewind(context: Context[Any, Any, Any], chunks: int = 1) -> Answer:
        """Go back in time by so many chunks."""
        one = play(context)
        back = one.rewind(chunks)
        return _seen(one, f"went back {back} chunks")

    routes = list(server.streamable_http_app().routes)
    return routes, server.session_manager.run


def _seen(one: SinglePlay, what: str) -> Answer:
    picture = Image(data=png(enlarged(one.frame)), format="png")
    waiting = ", ".join(one.queue.names)
    then = f", then {waiting}" if waiting else ""
    return [f"{what}. Chunk {one.chunk}, in force: {one.command}{then}.", picture]
