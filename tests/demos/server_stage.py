"""A server in a thread of its own, for tests of the server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from websockets.sync.client import ClientConnection, connect

from magi_world.demos.server.app import make_app
from magi_world.demos.server.batching import Served
from magi_world.demos.server.config import Limits, ServeConfig
from magi_world.demos.server.hub import Hub
from magi_world.demos.server.pictures import HEADER
from magi_world.world.world import World
from tests.tiny import tiny_world


class Running:
    """A server that is up."""

    def __init__(self, hub: Hub, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.hub, self.port, self.loop = hub, port, loop

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}"


@contextlib.contextmanager
def running(folder: Path, world: World | None = None, **options: Any) -> Iterator[Running]:
    """A server of a tiny world; ``options`` of `ServeConfig`, and ``limits`` of `Limits`."""
    limits = Limits(**options.pop("limits", {}))
    config = ServeConfig(port=0, folder=folder, limits=limits, **{"batch": 4, "rest": 0, **options})
    world = world or tiny_world(config.batch)
    hub = Hub({"tiny": Served("tiny", world)}, config)
    server = uvicorn.Server(uvicorn.Config(make_app(hub), port=0, log_level="error"))
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Running(hub, port, loops[0])
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


class Page:
    """What a browser does, without one."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.frames: list[tuple[dict[str, int], bytes]] = []
        self.messages: list[dict[str, Any]] = []

    def say(self, kind: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": kind, **fields}))

    def read(self, timeout: float = 10.0) -> dict[str, Any] | None:
        """The next message; None for a picture."""
        got = self.socket.recv(timeout)
        if isinstance(got, bytes):
            kind, frame, futures, still, chunk, number = HEADER.unpack(got[: HEADER.size])
            head = {
                "kind": kind, "frame": frame, "futures": futures, "still": still,
                "chunk": chunk, "number": number,
            }  # fmt: skip
            self.frames.append((head, got[HEADER.size :]))
            return None
        self.messages.append(json.loads(got))
        return self.messages[-1]

    def until(self, kind: str, timeout: float = 20.0, **fields: Any) -> dict[str, Any]:
        """Read on until a message of this kind and these fields comes."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            message = self.read(max(0.1, end - time.monotonic()))
            wanted = {"type": kind, **fields}
            if message and all(message.get(name) == value for name, value in wanted.items()):
                return message
        raise AssertionError(f"no {kind} {fields} came")

    def picture(self, timeout: float = 20.0, **fields: int) -> tuple[dict[str, int], bytes]:
        """Read on until a picture with this header comes."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.read(max(0.1, end - time.monotonic())) is None:
                head, data = self.frames[-1]
                if all(head[name] == value for name, value in fields.items()):
                    return head, data
        raise AssertionError(f"no picture {fields} came")


@contextlib.contextmanager
def page(server: Running, number: int = 1, query: str = "", **options: Any) -> Iterator[Page]:
    """A page that is connected; ``number`` names visitor and browser."""
    name = f"{number:032x}"
    url = f"{server.ws}/play?visit={name}&key={name}{query}"
    with connect(url, max_size=None, **options) as socket:
        yield Page(socket)
