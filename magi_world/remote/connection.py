"""One WebSocket, shared by all worlds that were forked from one another."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from magi_world.remote.wire import MOST_BYTES, PROTOCOL, Parcel, pack, unpack

NEEDS = "a world behind ws:// needs websockets: pip install 'magi-world[serve]'"
TOO_FAST = 100  # times that a limit on the pace is waited for


class Connection:
    """Asks, and waits for the answer. Threads take turns."""

    def __init__(self, url: str, timeout: float) -> None:
        """Args:
            url: "ws://host:port", with ?token=... and ?world=... where they are needed.
            timeout: seconds to wait for each answer.

        Raises:
            ValueError: no such url.
            OSError: nobody answers there, or lets us in.
        """
        try:
            from websockets.exceptions import WebSocketException
            from websockets.sync.client import connect
        except ImportError as error:
            raise ImportError(NEEDS) from error
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.netloc:
            raise ValueError(f"url is {url!r}; it must be ws://HOST:PORT or wss://HOST:PORT")
        self.url, self._timeout = url, timeout
        path = f"{parts.path.rstrip('/')}/remote"
        address = urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
        try:
            self._open = ExitStack()
            self._socket = self._open.enter_context(
                connect(address, max_size=MOST_BYTES, open_timeout=timeout, compression=None)
            )
        except (OSError, WebSocketException, TimeoutError) as error:
            raise OSError(f"no server answers at {url}: {error or type(error).__name__}") from error
        self._lock = threading.Lock()
        self._gone: list[int] = []
        self._gone_worlds: list[int] = []
        hello = self.ask("hello")
        if hello.fields.get("protocol") != PROTOCOL:
            self.close()
            raise ValueError(
                f"the server at {url} speaks protocol {hello.fields.get('protocol')}, this package "
                f"speaks {PROTOCOL}; use the same version on both sides"
            )
        self.hello = hello.fields

    def ask(
        self, do: str, arrays: Mapping[str, np.ndarray] | None = None, fields: Any = None
    ) -> Parcel:
        """One question, one answer.

        Raises:
            ValueError: the server says that something is wrong with what was asked.
            OSError: the connection was lost.
        """
        for _ in range(TOO_FAST):
            answer = self._ask(do, arrays, fields)
            error = answer.fields.get("error")
            if error is None:
                return answer
            if (wait := answer.fields.get("wait")) is None:
                raise ValueError(error)
            time.sleep(wait)
        raise OSError(f"{self.url} did not let us go on: {error}")

    def forget(self, state: int) -> None:
        """A state is no longer needed; the server is told with the next question."""
        self._gone.append(state)

    def forget_world(self, world: int) -> None:
        self._gone_worlds.append(world)

    def close(self) -> None:
        self._open.close()

    def _ask(self, do: str, arrays: Mapping[str, np.ndarray] | None, fields: Any) -> Parcel:
        from websockets.exceptions import WebSocketException

        with self._lock:
            gone, self._gone = self._gone, []
            worlds, self._gone_worlds = self._gone_worlds, []
            head = {"do": do, **(fields or {})}
            if gone or worlds:
                head |= {"forget": gone, "forget_worlds": worlds}
            try:
                self._socket.send(pack(head, arrays))
                raw = self._socket.recv(self._timeout)
            except TimeoutError as error:
                self._socket.close()  # an answer that comes later must not be taken for another's
                raise OSError(f"{self.url} has not answered for {self._timeout:g} s") from error
            except (WebSocketException, EOFError, OSError) as error:
                reason = getattr(getattr(error, "rcvd", None), "reason", "") or str(error)
                raise OSError(f"the connection to {self.url} was lost: {reason}") from error
        if isinstance(raw, str):
            raise OSError(f"{self.url} does not let us in: {_refusal(raw)}")
        return unpack(raw)


def _refusal(raw: str) -> str:
    try:
        return str(json.loads(raw)["message"])
    except (ValueError, KeyError, TypeError):
        return raw[:200]
