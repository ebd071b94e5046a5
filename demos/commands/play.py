"""`magi-world play [WORLD]` and `serve [WORLD ...]`: a live world in a window, or in browsers."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from magi_world.demos.commands.options import (
    WorldOptions,
    argument,
    choice,
    count,
    default_world,
    file,
    follows,
    option,
    several,
)
from magi_world.demos.commands.record import find_script

if TYPE_CHECKING:
    from magi_world.agents.basic import Agent
    from magi_world.demos.play import PlayConfig
    from magi_world.demos.server.config import ServeConfig
    from magi_world.world.world import World

BEST = object()  # no seed was typed: the best start, with seed 0
_BEGIN, _WINDOW = "the beginning", "window and files"
_NET, _LIMITS, _FILES = "who may come in", "limits", "files and pictures"


def _seed(text: str) -> int | None:
    if text == "random":
        return None
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor random")
    return int(text)


def _start(text: str) -> int | str:
    if text in ("text", "best"):
        return text
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor text nor best")
    return int(text)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 .. 65535")
    return int(text)


@dataclass(frozen=True, kw_only=True)
class Play(WorldOptions):
    command = "play"
    told = "open a window on a live world"
    about = "Open a window on a live world. F1 in the window lists its keys."

    world: str | None = argument("WORLD", "by default the shipped one", count="?")
    remote: str | None = option("play a world of magi-world serve, ws://HOST:PORT", metavar="URL")
    seed: Any = option("a number, or random; by default the best start", BEST, _seed, group=_BEGIN)
    scene: str | None = option("scene prompt; by default the world's own", group=_BEGIN)
    image: Path | None = option("picture to start from", None, file, "FILE", group=_BEGIN)
    start: Any = option("number of a start video, text, or best", None, _start, group=_BEGIN)
    script: str | None = option("a script that is in charge at first", group=_BEGIN)
    agent: tuple[str, ...] = several(
        "an agent, or a function of (observation, info), that can be in charge", str, "MODULE:NAME",
        group=_BEGIN,
    )  # fmt: skip
    record: Path | None = option("film to this MP4", None, file, "FILE", group=_WINDOW)
    session: Path | None = option("session file", None, file, "FILE", group=_WINDOW)
    no_session: bool = option("write no session file", False, group=_WINDOW)
    folder: Path = option("for films, slots, ...", Path("recordings"), file, group=_WINDOW)
    steer: Literal["now", "queue"] = choice("", "now", "now", "queue", group=_WINDOW)
    scale: int | None = option("enlarge N times", None, count, "N", group=_WINDOW)
    hud: bool = option("figures at first, as with the key H", False, group=_WINDOW)
    max_seconds: float | None = option("close after so long", None, float, "S", group=_WINDOW)
    else_record: Path | None = option(
        "without a display, record the tour to this file instead", None, file, "FILE",
        group=_WINDOW,
    )  # fmt: skip

    def run(self) -> int:
        if follows():
            self.open_world(self.world or default_world())
        if self.else_record is not None and not _display():
            return self._record_instead(self.else_record)
        from magi_world.demos.play import play

        agents = {name: _agent(name) for name in self.agent}
        if self.remote is not None:
            return self._play_remote(self.remote, agents)
        return play(self.world, self._config(), agents, self.open_world)

    def _play_remote(self, url: str, agents: dict[str, Agent]) -> int:
        from magi_world.demos.play import play
        from magi_world.remote.world import RemoteWorld

        self.nothing_to_load("--remote")
        # Who answers there, and what is wrong with the address, is told before a window opens.
        first = RemoteWorld(url, world=self.world)

        def load(name: str) -> World:
            return first if name == first.source else RemoteWorld(url, world=name)

        try:
            return play(first.source, self._config(), agents, load, first.served)
        finally:
            first.close()

    def _config(self) -> PlayConfig:
        from magi_world.demos.play import PlayConfig

        # A seed that was asked for decides the start as well, as it does everywhere else.
        chosen = self.seed is BEST
        best: Literal["best"] | None = "best" if chosen else None
        return PlayConfig(
            **self.shared(PlayConfig)
            | {
                "seed": 0 if chosen else self.seed,
                "start": best if self.start is None else self.start,
                "script": None if self.script is None else find_script(self.script),
                "keep_session": not self.no_session,
                "size": PlayConfig.size,  # of the window; --size is that of the frames
            }
        )

    def _record_instead(self, path: Path) -> int:
        """The tour, for a machine without a display."""
        from magi_world.demos.record import RecordConfig, record
        from magi_world.demos.render import PictureConfig
        from magi_world.session.script import read_script

        print("there is no display, so this records a tour instead of opening a window")
        script = read_script(find_script("tour"))
        name = self.world or script.world
        world = self.open_world(name)
        script, _ = script.fitting(world)
        config = RecordConfig(PictureConfig(captions=True), overwrite=True)
        made = record(script.session(world, name), world, [path], config)
        print(f"wrote {path.resolve()}")
        print(f"      {Path(made.session or '').resolve()} (magi-world replay repeats it)")
        if not made.finished:
            print("stopped early; the file plays", file=sys.stderr)
        return 0 if made.finished else 130


def _display() -> bool:
    from magi_world.demos.doctor import display

    return display().verdict == "ok"


def _agent(name: str) -> Agent:
    """`load_agent`, which also finds modules in the current folder."""
    from magi_world.agents import load_agent

    sys.path.insert(0, str(Path.cwd()))
    try:
        return load_agent(name)
    finally:
        sys.path.pop(0)


@dataclass(frozen=True, kw_only=True)
class Serve(WorldOptions):
    command = "serve"
    told = "play in a browser, and let programs play"
    about = (
        "Serve live worlds to browsers (open the link it prints) and to programs: "
        "magi_world.RemoteWorld and play --remote, OpenEnv on /ws, MCP on /mcp."
    )

    worlds: tuple[str, ...] = argument("WORLD", "by default the shipped one", count="*")
    host: str = option("0.0.0.0 lets other machines connect", "127.0.0.1", group=_NET)
    port: int = option("0 takes a free one", 8765, _port, group=_NET)
    token: str | None = option("what visitors must know; auto makes one", group=_NET)
    open: bool = option("no token, though others can connect", False, group=_NET)
    allow_origin: tuple[str, ...] = several(
        "let pages of another site connect, e.g. https://example.org", str, "ORIGIN", group=_NET
    )
    batch: int = option(
        "worlds computed in one forward", 16, count, "N", "--batch", "--worlds", group=_LIMITS
    )
    visitors: int = option("at once", 16, count, group=_LIMITS)
    chunks: float = option("a second for each program", 40.0, float, "N", group=_LIMITS)
    idle: float = option("seconds until a visitor must go", 600.0, float, "S", group=_LIMITS)
    folder: Path = option("for sessions, slots", Path("recordings/served"), file, group=_FILES)
    no_sessions: bool = option("record nothing", False, group=_FILES)
    picture: Literal["jpeg", "webp"] = choice("", "jpeg", "jpeg", "webp", group=_FILES)
    quality: int = option("1 .. 100", 90, count, "Q", group=_FILES)

    def run(self) -> int:
        try:
            from magi_world.demos.server.app import serve
        except ImportError as error:
            raise ImportError(
                f"serve needs starlette and uvicorn: pip install 'magi-world[serve]' ({error})"
            ) from error

        names = self.worlds or (default_world(),)
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"world {twice[0]!r} is named twice")
        if follows():
            self.open_world(names[0])
        return serve(
            names, self.open_world, self._config(), self.threads,
            lambda text: print(text, flush=True),
        )  # fmt: skip

    def _config(self) -> ServeConfig:
        from magi_world.demos.server.config import Limits, ServeConfig, new_token

        return ServeConfig(
            **self.shared(ServeConfig)
            | {
                "token": new_token() if self.token == "auto" else self.token,
                "origins": self.allow_origin,
                "sessions": not self.no_sessions,
                "limits": Limits(**self.shared(Limits)),
            }
        )
