"""What a server is told, and what each of its visitors may do."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from magi_world.config import require
from magi_world.world.spec import MAX_CHARACTERS

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
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
