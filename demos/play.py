"""`magi-world play`: a window on a live world."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from magi_world.agents.basic import Agent, RandomAgent, RandomConfig, ScriptedAgent
from magi_world.agents.loading import policies_for
from magi_world.demos.bench import choose_threads
from magi_world.demos.config import PlayConfig
from magi_world.demos.doctor import find_display
from magi_world.demos.window import jobs
from magi_world.demos.window.jobs import Start
from magi_world.demos.window.player import Player, PlayerConfig
from magi_world.demos.window.state import AppState, StateConfig
from magi_world.demos.window.watchers import SessionFile, Watcher
from magi_world.demos.window.worker import Engine, Worker
from magi_world.io.released import PRESETS
from magi_world.loading import DEFAULT_WORLD, find_package, list_worlds, load_world
from magi_world.session.events import Event, Keep, Reset, StartFile, Step
from magi_world.session.script import Script, read_script
from magi_world.world.world import World

NO_DISPLAY = """\
play needs a display, and there is none here ({reason}).
What works without one:
  magi-world record SCRIPT -o out.mp4    renders a script to a video
  xvfb-run -a magi-world play            plays on a display that nobody sees"""


def play(
    world: World | str | None = None,
    config: PlayConfig | None = None,
    agents: Mapping[str, Agent] | None = None,
    load: Callable[[str], World] = load_world,
    worlds: Sequence[str] | None = None,
) -> int:
    """Open a window on a world and play until it is closed.

    Args:
        world: a world with ``num_worlds=1``, or its name; None takes the script's, else the
            default one, else the first there is.
        agents: name -> who else can be in charge; "random" is always there.
        load: opens a world by name.
        worlds: names that the picker offers; None is `list_worlds`.

    Returns:
        The exit code: 0, or 2 where there is no display (standard error says what to do instead).

    Raises:
        ValueError, OSError: an option, the script or a file of it is wrong. No window was opened.
    """
    config = config or PlayConfig()
    others: dict[str, Agent] = {"random": RandomAgent(config=RandomConfig(seed=config.seed or 0))}
    others |= agents or {}
    place = config.start if config.image is None or config.start != "best" else None
    start = jobs.Start(config.seed, config.scene, config.image, place)
    if config.script is not None:
        script = read_script(config.script)
        others = {"script": script_agent(script), **others}
        start = script_start(script)
        world = script.world if world is None else world
    if config.image is not None and not config.image.is_file():
        raise FileNotFoundError(f"PlayConfig.image is {config.image}; there is no such file")
    if isinstance(world, str) and load is load_world and world not in PRESETS:
        find_package(world)
    if reason := find_display()[1]:
        print(NO_DISPLAY.format(reason=reason), file=sys.stderr)
        return 2
    names = list_worlds() if worlds is None else list(worlds)
    tune = choose_threads if config.threads is None else _given_threads(config.threads)
    state = make_state(Engine(load, policies_for, tune), others, names, config)
    if config.script is not None:
        state.player.hand_to("script")
    if world is None and names:
        world = DEFAULT_WORLD if DEFAULT_WORLD in names else names[0]
    if world is None:
        state.show("worlds")
    else:
        state.player.open(jobs.Open(world, start))
    return _run(state, config)


def make_state(
    engine: Engine, agents: Mapping[str, Agent], worlds: Sequence[str], config: PlayConfig
) -> AppState:
    """The state of a window: player, worker and files, all at rest."""
    begun = _stamp()
    player = Player(
        Worker(engine),
        agents,
        config=PlayerConfig(steer=config.steer, slots=config.folder / "slots"),
    )
    state = AppState(player, worlds, StateConfig(config.folder, _stamp, config.scale, config.hud))
    if config.keep_session:
        path = config.session or config.folder / f"session-{begun}.jsonl"
        player.watchers.append(SessionFile(path))
    if config.record is not None:
        player.watchers.append(_FilmAtOnce(state, config.record))
    return state


class _FilmAtOnce(Watcher):
    """Switches the film on when the first world begins."""

    def __init__(self, state: AppState, path: Path) -> None:
        self._state, self._path = state, path

    def happened(self, event: Event, moments: Sequence[jobs.Moment] = ()) -> None:
        if isinstance(event, Reset):
            self._state.player.watchers.remove(self)
            self._state.start_film(self._path)


def _run(state: AppState, config: PlayConfig) -> int:
    from magi_world.demos.window.app import App, AppConfig

    app = App(state, AppConfig(config.size, scale=config.scale, max_seconds=config.max_seconds))
    threads = torch.get_num_threads()
    try:
        app.run()
    except KeyboardInterrupt:
        pass
    finally:
        sessions = [w.path for w in state.player.watchers if isinstance(w, SessionFile)]
        app.close()
        torch.set_num_threads(threads)
    for path in sessions:
        if path.is_file():
            print(f"session: {path} (magi-world replay repeats it)")
    return 0


def _given_threads(threads: int) -> Callable[[World], int]:
    def tune(world: World) -> int:
        torch.set_num_threads(threads)
        return threads

    return tune


def _stamp() -> str:
    return time.strftime("%Y%m%d-%H%M%S")


def script_agent(script: Script) -> ScriptedAgent:
    """What the script says, chunk by chunk; of a fork, what the kept future says.
    Raises ValueError: it never says anything.
    """
    lines: dict[int, str] = {}
    fork: list[Step] = []
    for event in script.events:
        if isinstance(event, Keep):
            lines |= _lines(fork, event.future)
            fork = []
        elif isinstance(event, Step) and (fork or isinstance(event.say, tuple)):
            fork.append(event)
        elif isinstance(event, Step):
            lines |= _lines([event], 0)
    if not lines:
        raise ValueError(f"{script.path} says nothing; it needs a line with say")
    return ScriptedAgent(lines)


def script_start(script: Script) -> Start:
    """What the script begins with.
    Raises ValueError: it begins with a video, which the window cannot.
    """
    reset = script.events[0]
    if not isinstance(reset, Reset) or isinstance(reset.scene, tuple):
        raise ValueError(f"{script.path} does not begin with one world")
    start, image = reset.start, None
    if isinstance(start, StartFile):
        if start.kind != "image":
            raise ValueError(f"{script.path} begins with a video; `magi-world record` plays it")
        image = script.path.parent / Path(start.path)
        start = None
    return Start(reset.seeds[0], reset.scene, image, start)


def _lines(steps: list[Step], row: int) -> dict[int, str]:
    lines = {}
    for step in steps:
        say = step.say[row] if isinstance(step.say, tuple) else step.say
        if say is not None and isinstance(step.chunk, int):
            lines[step.chunk] = say
    return lines
