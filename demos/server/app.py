"""The web application: the page and its files, the sockets, and the doors for programs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket as sockets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from magi_world import __version__
from magi_world.demos.server.batching import Served
from magi_world.demos.server.config import COOKIE, Access, Refused, ServeConfig, link
from magi_world.demos.server.hub import Hub
from magi_world.demos.server.openenv import openenv_routes
from magi_world.demos.server.page_socket import page_socket
from magi_world.demos.server.pictures import write_film
from magi_world.demos.server.remote import remote_socket
from magi_world.demos.server.visitor import Visitor
from magi_world.world.world import World

_PAGE = files("magi_world.demos") / "server" / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' ws: wss:"
)
_OPEN_PATHS = ("/health",)

Handler = Callable[[Request], Awaitable[Response]]


def make_app(hub: Hub) -> Starlette:
    """Everything that the server answers."""
    site = _Site(hub)
    doors: list[BaseRoute] = openenv_routes(hub)
    lifespans: list[Callable[[], contextlib.AbstractAsyncContextManager[object]]] = []
    if find_spec("mcp") is not None:
        from magi_world.demos.server.mcp import mcp_door

        routes_of_mcp, enter_mcp = mcp_door(hub)
        doors += routes_of_mcp
        lifespans.append(enter_mcp)
    videos = None
    if find_spec("aiortc") is not None:
        from magi_world.demos.server.video import Videos

        hub.video, videos = True, Videos()
        doors.append(Route("/video", site.video(videos.answer), methods=["POST"]))

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for enter in lifespans:
                await stack.enter_async_context(enter())
            if videos is not None:
                stack.push_async_callback(videos.close)
            sweep = asyncio.create_task(hub.sweep())
            try:
                yield
            finally:
                sweep.cancel()
                await hub.close()

    routes: list[BaseRoute] = [
        Route("/", site.page),
        Route("/page/{name}", site.asset),
        Route("/health", site.health),
        Route("/status", site.status),
        Route("/journey.mp4", site.film),
        Route("/session.jsonl", site.session),
        Route("/slot/{number:int}", site.slot),
        WebSocketRoute("/play", partial(page_socket, hub=hub)),
        WebSocketRoute("/remote", partial(remote_socket, hub=hub)),
        *doors,
    ]
    app = Starlette(routes=routes, lifespan=lifespan)
    app.add_middleware(_Guard, access=Access(hub.config))
    return app


class _Guard:
    """Lets nobody through whom `Access` refuses."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] in _OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        try:
            self._access.check(HTTPConnection(scope))
        except Refused as refused:
            if scope["type"] == "websocket":
                # A browser cannot read why a handshake failed, so it is let in to be told.
                socket = WebSocket(scope, receive, send)
                await socket.accept()
                message = {"type": "refused", "field": "access", "message": str(refused)}
                await socket.send_json(message)
                await socket.close(4000 + refused.status, str(refused)[:120])
            else:
                await _told(refused, refused.status)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class _Site:
    """The page, its files, and what a visitor can take home."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def page(self, request: Request) -> Response:
        response = await _file("index.html")
        token = self._hub.config.token
        if token is not None and "token" in request.query_params:
            # The link brought the token; from here on the browser keeps it.
            secure = request.url.scheme == "https"
            response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure)
        return response

    async def asset(self, request: Request) -> Response:
        return await _file(request.path_params["name"])

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "healthy"})

    async def status(self, request: Request) -> Response:
        hub, worlds = self._hub, {}
        for name, served in hub.worlds.items():
            figures = asdict(served.batcher.figures)
            worlds[name] = {
                **figures, "busy": round(figures["busy"], 3), "batch": served.world.num_worlds
            }  # fmt: skip
        return JSONResponse(
            {
                "version": __version__,
                "visitors": len(hub.visitors),
                "programs": len(hub.programs),
                "places": hub.config.limits.visitors,
                "worlds": worlds,
            }
        )

    async def film(self, request: Request) -> Response:
        if (visitor := self._who(request)) is None:
            return _NOBODY
        chunks, fps = visitor.journey.copy(), visitor.served.spec.fps
        handle, name = tempfile.mkstemp(suffix=".mp4")
        os.close(handle)
        path = Path(name)
        try:
            captions = request.query_params.get("captions", "1") != "0"
            await asyncio.to_thread(write_film, path, chunks, fps, captions)
        except ValueError as error:
            path.unlink(missing_ok=True)
            return _told(error, 409)
        filename = f"{visitor.served.spec.name}-journey.mp4"
        remove = BackgroundTask(path.unlink, missing_ok=True)
        return FileResponse(path, media_type="video/mp4", filename=filename, background=remove)

    async def session(self, request: Request) -> Response:
        if (visitor := self._who(request)) is None:
            return _NOBODY
        if visitor.session is None:
            return _told("this server records no sessions", 404)
        filename = f"{visitor.served.spec.name}.session.jsonl"
        content = await asyncio.to_thread(visitor.session.read_bytes)
        headers = {"Content-Disposition": f'attachment; filename="{filename}"'}
        return Response(content, media_type="application/jsonl", headers=headers)

    async def slot(self, request: Request) -> Response:
        if (visitor := self._who(request)) is None:
            return _NOBODY
        try:
            picture = visitor.slots.picture(request.path_params["number"])
        except ValueError as error:
            return _told(error, 404)
        if picture is None:
            return _told("this slot is empty", 404)
        kind = "image/jpeg" if picture.startswith(b"\xff\xd8") else "image/webp"
        return Response(picture, media_type=kind, headers={"Cache-Control": "no-store"})

    def video(self, answer: Callable[[Visitor, object], Awaitable[dict[str, str]]]) -> Handler:
        async def video(request: Request) -> Response:
            if (visitor := self._who(request)) is None:
                return _NOBODY
            try:
                return JSONResponse(await answer(visitor, await request.json()))
            except ValueError as error:
                return _told(error, 422)

        return video

    def _who(self, request: Request) -> Visitor | None:
        """The visitor that a request names; whoever knows the name of a visit may see it."""
        return self._hub.visitors.get(request.query_params.get("visit", ""))


def _told(what: object, status: int) -> Response:
    return PlainTextResponse(f"{what}\n", status)


_NOBODY = _told("there is no such visit (any more)", 404)


async def _file(name: str) -> Response:
    suffix = Path(name).suffix
    source = _PAGE / name
    if "/" in name or suffix not in _TYPES or not source.is_file():
        return _told("there is no such file", 404)
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    content = await asyncio.to_thread(source.read_bytes)
    return Response(content, media_type=_TYPES[suffix], headers=headers)


def serve(
    names: Sequence[str],
    load: Callable[[str, int], World],
    config: ServeConfig,
    threads: int | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Load the worlds, then answer until Ctrl-C or a signal.

    Args:
        names: worlds to serve; the first one is what visitors see by default.
        load: (name, worlds in the batch) -> world.
        threads: of the CPU; None measures which number is quickest.
        say: for what the person at the terminal should know.

    Raises:
        ValueError, OSError: a world cannot be loaded, or the port is taken.
    """
    listener = _listen(config)
    port = listener.getsockname()[1]
    config = replace(config, port=port)
    worlds: Mapping[str, Served] = {n: Served(n, load(n, config.batch), threads) for n in names}
    hub = Hub(worlds, config)
    settings = uvicorn.Config(
        make_app(hub), log_level="warning", ws_max_size=64 * 2**20, ws_per_message_deflate=False,
        timeout_graceful_shutdown=2,
    )  # fmt: skip
    listener.listen()  # from here on whoever follows the link waits, and is not turned away
    say(f"magi-world serves {', '.join(names)}")
    say(f"  {link(config)}")
    if config.token is None and config.open:
        say("  open to everybody who can reach this machine")
    if config.sessions:
        say(f"  sessions are recorded in {(config.folder / 'sessions').resolve()}")
    say("  Ctrl-C stops it")
    uvicorn.Server(settings).run(sockets=[listener])
    return 0


def _listen(config: ServeConfig) -> sockets.socket:
    family = sockets.AF_INET6 if ":" in config.host else sockets.AF_INET
    listener = sockets.socket(family, sockets.SOCK_STREAM)
    listener.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except OSError as error:
        listener.close()
        raise OSError(
            f"cannot listen on {config.host}:{config.port} ({error.strerror}); "
            "--port 0 takes a free one"
        ) from error
    return listener
