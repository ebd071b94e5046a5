"""What a server is told, what each of its visitors may do, and who may come in."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket as sockets
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from magi_world.config import require
from magi_world.world.spec import MAX_CHARACTERS

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

Format = Literal["jpeg", "webp"]


@dataclass(frozen=True)
class Limits:
    """What one visitor, in a browser or a program, may ask for.

    visitors: at once.    text: characters of one command.
    chunks: a second; None does not count them.    messages: a second.
    idle: seconds without a message, after which a visitor's place is given to another.
    away: seconds that the world of a browser that has gone is kept for its return.
    states: moments that a program may keep (`snapshot`).    rows: worlds of one program.
    memory: bytes of moments that one visitor can rewind to.
    """

    visitors: int = 16
    text: int = 300
    chunks: float | None = 40.0
    messages: float = 60.0
    idle: float = 600.0
    away: float = 120.0
    states: int = 1024
    rows: int = 16
    memory: int = 64 * 2**20

    def __post_init__(self) -> None:
        for name in ("visitors", "text", "states", "rows", "memory"):
            require(
                getattr(self, name) >= 1,
                f"Limits.{name} is {getattr(self, name)}; it must be a whole number from 1",
            )
        require(
            self.text <= MAX_CHARACTERS,
            f"Limits.text is {self.text}; it must be at most {MAX_CHARACTERS}",
        )
        require(
            self.chunks is None or self.chunks > 0,
            f"Limits.chunks is {self.chunks}; it must be positive, or None",
        )
        for name in ("messages", "idle", "away"):
            require(
                getattr(self, name) > 0,
                f"Limits.{name} is {getattr(self, name)}; it must be positive",
            )


@dataclass(frozen=True)
class ServeConfig:
    """How a server runs.

    token: what everyone must know who comes in; None asks for none.
    open: beyond the loopback, let everybody in without a token.
    origins: further origins ("https://example.org") whose pages may connect.
    batch: worlds that are computed in one forward.
    folder: where sessions and saved moments go.    sessions: record what visitors do.
    picture, quality: how frames are sent to browsers.
    rest: seconds after which a browser's picture rests when nobody says anything: a world that is
    left to itself drifts away from what it was, and others may have its time. 0 = never.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = None
    open: bool = False
    origins: tuple[str, ...] = ()
    batch: int = 16
    folder: Path = Path("recordings/served")
    sessions: bool = True
    picture: Format = "jpeg"
    quality: int = 90
    rest: float = 5.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        require(0 <= self.port <= 65535, f"ServeConfig.port is {self.port}; it must be 0 .. 65535")
        require(
            self.batch >= 1, f"ServeConfig.batch is {self.batch}; it must be a whole number from 1"
        )
        require(
            1 <= self.quality <= 100,
            f"ServeConfig.quality is {self.quality}; it must be 1 .. 100",
        )
        require(
            self.rest >= 0,
            f"ServeConfig.rest is {self.rest}; it must be seconds, 0 for never",
        )
        require(
            self.picture in ("jpeg", "webp"),
            f"ServeConfig.picture is {self.picture!r}; it must be 'jpeg' or 'webp'",
        )
        require(
            self.token is None or (self.token.isascii() and len(self.token) >= 8),
            "ServeConfig.token is too short or not ASCII; it must have at least 8 characters",
        )
        require(
            self.loopback or self.token is not None or self.open,
            f"ServeConfig.host is {self.host}, which other machines reach; give a token "
            "(--token auto makes one), or --open to let everybody in",
        )

    @property
    def loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class TooFast(ValueError):
    """Over a limit. ``wait``: seconds after which it would be all right."""

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message)
        self.wait = wait


class Allowance:
    """At most ``rate`` a second in the long run; what two seconds allow at once after a pause."""

    def __init__(self, what: str, rate: float | None) -> None:
        """``what`` is counted, as messages name it. ``rate`` None allows everything."""
        self._what, self._rate = what, rate
        self._burst = max(1.0, 2 * (rate or 0))
        self._left, self._then = self._burst, monotonic()

    def take(self, count: int = 1) -> None:
        """Use some. Raises TooFast: there are not so many; nothing was used."""
        if self._rate is None:
            return
        now = monotonic()
        self._left = min(self._burst, self._left + (now - self._then) * self._rate)
        self._then = now
        # More than fits at once is allowed from a full bucket, and paid back later.
        if self._left < min(count, self._burst):
            wait = (min(count, self._burst) - self._left) / self._rate
            raise TooFast(
                f"{self._what}: at most {self._rate:g} a second; wait {wait:.2f} seconds", wait
            )
        self._left -= count


COOKIE = "magi-world-token"
_LOCAL = ("localhost", "127.0.0.1", "::1")


class Refused(Exception):
    """Not let in. ``status``: of HTTP; the message says what would be right."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Access:
    """Checks every request before anything else is done with it."""

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        self._origins = {origin.rstrip("/").lower() for origin in config.origins}

    def check(self, connection: HTTPConnection) -> None:
        """Raises `Refused` for the wrong host, origin or token."""
        host = connection.headers.get("host", "")
        self._check_host(host)
        self._check_origin(connection.headers.get("origin"), host)
        self.check_token(connection)

    def check_token(self, connection: HTTPConnection) -> None:
        """Raises `Refused` without the right token: in the link, a header, or the page's cookie."""
        token = self._config.token
        if token is None:
            return
        bearer = connection.headers.get("authorization", "")
        given = (
            connection.query_params.get("token"),
            bearer[7:] if bearer.lower().startswith("bearer ") else None,
            connection.cookies.get(COOKIE),
        )
        tried = [one for one in given if one]
        if not any(hmac.compare_digest(one.encode(), token.encode()) for one in tried):
            what = "the token is not the right one" if tried else "this server needs its token"
            raise Refused(
                401,
                f"{what}; open the link that the server printed when it started "
                "(programs: ?token=... or the header Authorization: Bearer ...)",
            )

    def _check_host(self, host: str) -> None:
        # Without a token only this machine may ask. A page elsewhere could have its own name
        # point here; then the name in the request is not one of ours.
        if self._config.token is not None or self._config.open:
            return
        name = (urlsplit(f"//{host}").hostname or "").lower()
        if name not in (*_LOCAL, self._config.host.lower()):
            raise Refused(403, f"the host is {host!r}; this server answers to {self._config.host}")

    def _check_origin(self, origin: str | None, host: str) -> None:
        """Programs send no origin; a browser's page must be ours, or one that was allowed."""
        if origin is None:
            return
        if origin.rstrip("/").lower() in self._origins:
            return
        if urlsplit(origin).netloc.lower() != host.lower():
            raise Refused(
                403,
                f"a page of {origin} may not connect; --allow-origin {origin} lets it",
            )


def link(config: ServeConfig) -> str:
    host = config.host
    if host in ("0.0.0.0", "::"):
        host = sockets.gethostname()  # as others may know this machine
    if ":" in host:
        host = f"[{host}]"
    query = "" if config.token is None else f"?token={config.token}"
    return f"http://{host}:{config.port}/{query}"


def new_token() -> str:
    return secrets.token_urlsafe(18)
