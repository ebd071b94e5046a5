"""Who may come in: the token, and the origin of the page that asks."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from magi_world.demos.server.config import ServeConfig

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
