"""A script as somebody who can be in charge."""

from __future__ import annotations

from pathlib import Path

from magi_world.agents.basic import ScriptedAgent
from magi_world.demos.script import Script
from magi_world.demos.window.jobs import Start
from magi_world.session.events import Keep, Reset, StartFile, Step


def script_agent(script: Script) -> ScriptedAgent:
    """What the script says, chunk by chunk; of a fork, what the kept future says.

    Raises:
        ValueError: it never says anything.
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

    Raises:
        ValueError: it begins with a video, which the window cannot.
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
