"""Runs a server until it is stopped."""

from __future__ import annotations

import secrets
import socket as sockets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from magi_world.demos.server.config import ServeConfig
from magi_world.world.world import World

NEEDS = "serve needs starlette and uvicorn: pip install 'magi-world[serve]' ({error})"


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
        ImportError: the extra `serve` is not installed.
        ValueError, OSError: a world cannot be loaded, or the port is taken.
    """
    try:
        import uvicorn

        from magi_world.demos.server.app import make_app
        from magi_world.demos.server.hub import Hub
        from magi_world.demos.server.served import Served
    except ImportError as error:
        raise ImportError(NEEDS.format(error=error)) from error
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


def link(config: ServeConfig) -> str:
    """What to open in a browser."""
    host = config.host
    if host in ("0.0.0.0", "::"):
        host = _own_address()
    if ":" in host:
        host = f"[{host}]"
    query = "" if config.token is None else f"?token={config.token}"
    return f"http://{host}:{config.port}/{query}"


def new_token() -> str:
    """A token that cannot be guessed."""
    return secrets.token_urlsafe(18)


def default_folder() -> Path:
    """Where sessions and saved moments go."""
    return Path("recordings") / "served"


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


def _own_address() -> str:
    """The name of this machine as others may know it."""
    return sockets.gethostname()
