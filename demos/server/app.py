"""The web application: the page and its files, the sockets, and the doors for programs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from magi_world import __version__
from magi_world.demos.server.access import COOKIE, Access, Refused
from magi_world.demos.server.hub import Hub
from magi_world.demos.server.journey import write_film
from magi_world.demos.server.openenv import openenv_routes
from magi_world.demos.server.remote import remote_socket
from magi_world.demos.server.socket import page_socket
from magi_world.demos.server.visitor import Visitor

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

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for enter in extra_lifespans:
                await stack.enter_async_context(enter())
            sweep = asyncio.create_task(hub.sweep())
            try:
                yield
            finally:
                sweep.cancel()
                await hub.close()

    doors: list[BaseRoute] = openenv_routes(hub)
    extra_lifespans: list[Callable[[], contextlib.AbstractAsyncContextManager[object]]] = []
    if find_spec("mcp") is not None:
        from magi_world.demos.server.mcp import mcp_door

        routes_of_mcp, enter_mcp = mcp_door(hub)
        doors += routes_of_mcp
        extra_lifespans.append(enter_mcp)

    if find_spec("aiortc") is not None:
        from magi_world.demos.server.video import Videos

        videos = Videos()
        hub.video = True
        doors.append(Route("/video", _video(hub, videos.answer), methods=["POST"]))
        extra_lifespans.append(lambda: contextlib.aclosing(_Closing(videos.close)))

    async def play(socket: WebSocket) -> None:
        await page_socket(socket, hub)

    async def remote(socket: WebSocket) -> None:
        await remote_socket(socket, hub)

    routes: list[BaseRoute] = [
        Route("/", _page(hub)),
        Route("/page/{name}", _asset),
        Route("/health", _health),
        Route("/status", _status(hub)),
        Route("/journey.mp4", _film(hub)),
        Route("/session.jsonl", _session(hub)),
        Route("/slot/{number:int}", _slot(hub)),
        WebSocketRoute("/play", play),
        WebSocketRoute("/remote", remote),
        *doors,
    ]
    app = Starlette(routes=routes, lifespan=lifespan)
    app.add_middleware(_Guard, access=Access(hub.config))
    return app


class _Closing:
    """Something that is closed when the server ends."""

    def __init__(self, close: Callable[[], Awaitable[None]]) -> None:
        self.aclose = close


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
                return
            response = PlainTextResponse(f"{refused}\n", refused.status)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _page(hub: Hub) -> Handler:
    async def page(request: Request) -> Response:
        response = await _file("index.html")
        if hub.config.token is not None and "token" in request.query_params:
            # The link brought the token; from here on the browser keeps it.
            secure = request.url.scheme == "https"
            response.set_cookie(
                COOKIE, hub.config.token, httponly=True, samesite="strict", secure=secure
            )
        return response

    return page


async def _asset(request: Request) -> Response:
    return await _file(request.path_params["name"])


async def _file(name: str) -> Response:
    suffix = Path(name).suffix
    source = _PAGE / name
    if "/" in name or suffix not in _TYPES or not source.is_file():
        return PlainTextResponse("there is no such file\n", 404)
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    content = await asyncio.to_thread(source.read_bytes)
    return Response(content, media_type=_TYPES[suffix], headers=headers)


async def _health(request: Request) -> Response:
    return JSONResponse({"status": "healthy"})


def _status(hub: Hub) -> Handler:
    async def status(request: Request) -> Response:
        worlds = {}
        for name, served in hub.worlds.items():
            figures = served.batcher.figures
            worlds[name] = {
                "forwards": figures.forwards,
                "chunks": figures.chunks,
                "busy": round(figures.busy, 3),
                "waiting": figures.waiting,
                "batch": served.world.num_worlds,
            }
        return JSONResponse(
            {
                "version": __version__,
                "visitors": len(hub.visitors),
                "programs": len(hub.programs),
                "places": hub.config.limits.visitors,
                "worlds": worlds,
            }
        )

    return status


def _film(hub: Hub) -> Handler:
    async def film(request: Request) -> Response:
        visitor = _who(hub, request)
        if isinstance(visitor, Response):
            return visitor
        chunks, fps = visitor.journey.copy(), visitor.served.spec.fps
        handle, name = tempfile.mkstemp(suffix=".mp4")
        os.close(handle)
        path = Path(name)
        remove = BackgroundTask(path.unlink, missing_ok=True)
        try:
            captions = request.query_params.get("captions", "1") != "0"
            await asyncio.to_thread(write_film, path, chunks, fps, captions)
        except ValueError as error:
            path.unlink(missing_ok=True)
            return PlainTextResponse(f"{error}\n", 409)
        filename = f"{visitor.served.spec.name}-journey.mp4"
        return FileResponse(path, media_type="video/mp4", filename=filename, background=remove)

    return film


def _session(hub: Hub) -> Handler:
    async def session(request: Request) -> Response:
        visitor = _who(hub, request)
        if isinstance(visitor, Response):
            return visitor
        if visitor.session is None:
            return PlainTextResponse("this server records no sessions\n", 404)
        filename = f"{visitor.served.spec.name}.session.jsonl"
        content = await asyncio.to_thread(visitor.session.read_bytes)
        headers = {"Content-Disposition": f'attachment; filename="{filename}"'}
        return Response(content, media_type="application/jsonl", headers=headers)

    return session


def _slot(hub: Hub) -> Handler:
    async def slot(request: Request) -> Response:
        visitor = _who(hub, request)
        if isinstance(visitor, Response):
            return visitor
        try:
            picture = visitor.slots.picture(request.path_params["number"])
        except ValueError as error:
            return PlainTextResponse(f"{error}\n", 404)
        if picture is None:
            return PlainTextResponse("this slot is empty\n", 404)
        kind = "image/jpeg" if picture.startswith(b"\xff\xd8") else "image/webp"
        return Response(picture, media_type=kind, headers={"Cache-Control": "no-store"})

    return slot


def _video(hub: Hub, answer: Callable[[Visitor, object], Awaitable[dict[str, str]]]) -> Handler:
    async def video(request: Request) -> Response:
        visitor = _who(hub, request)
        if isinstance(visitor, Response):
            return visitor
        try:
            return JSONResponse(await answer(visitor, await request.json()))
        except ValueError as error:
            return PlainTextResponse(f"{error}\n", 422)

    return video


def _who(hub: Hub, request: Request) -> Visitor | Response:
    """The visitor that a request names; whoever knows the name of a visit may see it."""
    visitor = hub.visitors.get(request.query_params.get("visit", ""))
    if visitor is None:
        return PlainTextResponse("there is no such visit (any more)\n", 404)
    return visitor
