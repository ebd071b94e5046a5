"""`magi-world play [WORLD]` and `serve [WORLD ...]`: a live world in a window, or in browsers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from magi_world.demos.commands.options import (
    Command,
    Count,
    File,
    Opt,
    OptCount,
    OptFile,
    Several,
    Switch,
    Words,
    WorldOptions,
    default_world,
    follows,
    option,
    required,
)
from magi_world.demos.commands.record import find_script
from magi_world.demos.config import PlayConfig
from magi_world.demos.server.config import Limits, ServeConfig, new_token

if TYPE_CHECKING:
    from magi_world.agents.basic import Agent
    from magi_world.world.world import World


@dataclass(frozen=True, kw_only=True)
class Play(Command):
    """Open a window on a live world.

    F1 in the window lists its keys.
    """

    world: Positional[Opt[str]] = option("by default the shipped one")
    remote: Opt[str] = option("play a world of magi-world serve, ws://HOST:PORT")
    seed: Opt[int | Literal["random"]] = option("default: the best start")
    scene: Opt[str] = option("scene prompt; by default the world's own")
    image: OptFile = option("picture to start from")
    start: Opt[int | Literal["text", "best"]] = option("number of a start video, text, or best")
    script: Opt[str] = option("a script that is in charge at first")
    agent: Several[str] = option(
        "MODULE:NAME, an agent, or a function of (observation, info), that can be in charge", ()
    )
    record: OptFile = option("film to this MP4")
    session: OptFile = option("session file")
    no_session: Switch = option("write no session file", False)
    folder: File = option("for films, slots, ...", PlayConfig.folder)
    steer: Literal["now", "queue"] = option("", PlayConfig.steer)
    scale: OptCount = option("enlarge N times")
    hud: Switch = option("figures at first, as with the key H", False)
    max_seconds: Opt[float] = option("close after so long")
    else_record: OptFile = option("without a display, record the tour to this file instead")
    loading: WorldOptions = required("How a world is loaded.")

    def run(self) -> int:
        if follows():
            self.loading.open_world(self.world or default_world())
        if self.else_record is not None and not _display():
            return self._record_instead(self.else_record)
        from magi_world.demos.play import play

        agents = {name: _agent(name) for name in self.agent}
        if self.remote is not None:
            return self._play_remote(self.remote, agents)
        return play(self.world, self._config(), agents, self.loading.open_world)

    def _play_remote(self, url: str, agents: dict[str, Agent]) -> int:
        from magi_world.demos.play import play
        from magi_world.remote.world import RemoteWorld

        self.loading.nothing_to_load("--remote")
        # Who answers there, and what is wrong with the address, is told before a window opens.
        first = RemoteWorld(url, world=self.world)

        def load(name: str) -> World:
            return first if name == first.source else RemoteWorld(url, world=name)

        try:
            return play(first.source, self._config(), agents, load, first.served)
        finally:
            first.close()

    def _config(self) -> PlayConfig:
        # A seed that was asked for decides the start as well, as it does everywhere else.
        best: Literal["best"] | None = "best" if self.seed is None else None
        return PlayConfig(
            **self.shared(PlayConfig)
            | {
                "seed": None if self.seed == "random" else self.seed or 0,
                "start": best if self.start is None else self.start,
                "script": None if self.script is None else find_script(self.script),
                "keep_session": not self.no_session,
                "threads": self.loading.threads,
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
        world = self.loading.open_world(name)
        script, _ = script.fitting(world)
        config = RecordConfig(PictureConfig(captions=True, smooth=True), overwrite=True)
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
class Serve(Command):
    """Play in a browser, and let programs play.

    Serves live worlds to browsers (open the link it prints) and to programs: magi_world.RemoteWorld
    and play --remote, OpenEnv on /ws, MCP on /mcp.
    """

    worlds: Annotated[Words, arg(metavar="[WORLD ...]")] = option("by default the shipped one", ())
    host: str = option("0.0.0.0 lets other machines connect", ServeConfig.host)
    port: int = option("0 takes a free one", ServeConfig.port)
    token: Opt[str] = option("what visitors must know; auto makes one")
    open: Switch = option("no token, though others can connect", False)
    allow_origin: Several[str] = option(
        "let pages of another site connect, e.g. https://example.org", ()
    )
    batch: Annotated[Count, arg(aliases=["--worlds"])] = option(
        "worlds computed in one forward", ServeConfig.batch
    )
    visitors: Count = option("at once", Limits.visitors)
    chunks: Opt[float] = option("a second for each program", Limits.chunks)
    idle: float = option("seconds until a visitor must go", Limits.idle)
    folder: File = option("for sessions, slots", ServeConfig.folder)
    no_sessions: Switch = option("record nothing", False)
    picture: Literal["jpeg", "webp"] = option("", ServeConfig.picture)
    quality: Count = option("1 .. 100", ServeConfig.quality)
    loading: WorldOptions = required("How a world is loaded.")

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
            self.loading.open_world(names[0])
        return serve(
            names, self.loading.open_world, self._config(), self.loading.threads,
            lambda text: print(text, flush=True),
        )  # fmt: skip

    def _config(self) -> ServeConfig:
        return ServeConfig(
            **self.shared(ServeConfig)
            | {
                "token": new_token() if self.token == "auto" else self.token,
                "origins": self.allow_origin,
                "sessions": not self.no_sessions,
                "limits": Limits(**self.shared(Limits)),
            }
        )
