"""Scripts: small YAML files that say what happens to a world, and when (docs/record.md).

    title: There and back            # optional; the first note
    world: courtyard             # what load_world takes
    seed: 7                          # optional, 0
    start: 2                         # optional: number of a start video, text, {image: FILE}
    scene: a cellar                  # optional
    script:
      - say: walk forward            # one chunk,
        for: 4                       # or as many as you say
      - {at: 9, say: turn left}      # chunks 5 to 8 went on as before; this is chunk 9
      - repeat: 2
        do:
          - {say: walk backward, for: 2}
      - fork: [turn left, turn right]     # both at once, side by side
        for: 3
        keep: turn right                  # which one goes on; the first if nothing is said
    strict: false                    # optional: give texts to the world as they are
    length: 30                       # optional: the last command goes on up to this chunk

A script becomes events, the same as in a session file, so one player performs both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from magi_world.config import require
from magi_world.io.marked_yaml import Node, read_nodes
from magi_world.language import CommandQueue, Interpreter
from magi_world.session.events import Event, Fork, Keep, Note, Reset, Said, StartFile, Step
from magi_world.session.session import Header, Session
from magi_world.world.start import best_start
from magi_world.world.world import World


@dataclass(frozen=True)
class Told:
    """One future of a script: what it was told, and the command in force."""

    queue: CommandQueue
    command: str | None


class EventReader:
    """Steps that say something, one after the other, as steps that say a command each.

    Args:
        interpreter: of the world.
        where: a line as a message names it, e.g. "tour.yaml, line".
    """

    def __init__(self, interpreter: Interpreter, where: str) -> None:
        self.interpreter, self.where = interpreter, where
        first = interpreter.spec.default_command
        self._told = [Told(CommandQueue(command=first, rest=first), first)]

    def read(self, event: Event, line: int) -> list[Event]:
        """The event; before it what became of each text that is no name of a command.
        Raises ValueError: a text is not understood; the message says why, and names the line.
        """
        if isinstance(event, Fork):
            self._told = self._told * event.futures
        elif isinstance(event, Keep):
            self._told = [self._told[event.future]]
        if not isinstance(event, Step):
            return [event]
        several = isinstance(event.say, tuple)
        texts = event.say if isinstance(event.say, tuple) else [event.say] * len(self._told)
        said = [self._tell(row, text, line, several) for row, text in enumerate(texts)]
        commands = tuple(self._next(row) for row in range(len(self._told)))
        say = commands if several else commands[0] if len(set(commands)) == 1 else commands
        if isinstance(say, tuple) and not any(say):
            say = None
        return [*(one for one in said if one is not None), replace(event, say=say)]

    def _tell(self, row: int, text: str | None, line: int, several: bool) -> Said | None:
        if text is None:
            return None
        told = self._told[row]
        reading = self.interpreter.read(text, told.queue)
        if not reading.obeyed:
            raise ValueError(f"{self.where} {line}: {text!r} is not understood: {reading.answer}")
        # What is said is in force anew, even where it was before.
        self._told[row] = Told(told.queue.say(reading), None)
        return None if reading.plain else Said.of(reading, row if several else None)

    def _next(self, row: int) -> str | None:
        """The command of the next chunk; None goes on with the one in force."""
        told = self._told[row]
        command, queue = told.queue.next()
        self._told[row] = Told(queue, command)
        return None if command == told.command else command


def read_events(
    events: Sequence[Event], lines: Sequence[int], interpreter: Interpreter, where: str
) -> tuple[tuple[Event, ...], tuple[int, ...]]:
    """All events of a script and their lines, read. Raises ValueError: as `EventReader.read`."""
    reader = EventReader(interpreter, where)
    read = [(e, n) for event, n in zip(events, lines, strict=True) for e in reader.read(event, n)]
    return tuple(e for e, _ in read), tuple(n for _, n in read)


MAX_CHUNKS = 100_000  # half a day of video; more is a mistake
_TOP = (
    "title", "world", "seed", "start", "scene", "steer", "num_steps", "window_size",
    "frame_size", "strict", "script", "length",
)  # fmt: skip
_ENTRIES = {
    "say": ("say", "at", "for", "note", "steer"),
    "fork": ("fork", "at", "for", "note", "keep"),
    "repeat": ("repeat", "do"),
    "for": ("for", "note"),
    "at": ("at", "note"),
    "note": ("note",),
}


@dataclass(frozen=True)
class Script:
    """A script that was read and found right.

    events, lines: what happens, and the line of the file that says so.
    num_steps, window_size, frame_size: options of `load_world`; None is the world's own.
    strict: texts are read as sentences; otherwise the world gets them as they are.
    """

    path: Path
    world: str
    title: str
    events: tuple[Event, ...]
    lines: tuple[int, ...]
    num_steps: int | None = None
    window_size: int | None = None
    frame_size: tuple[int, int] | None = None
    strict: bool = True

    @property
    def chunks(self) -> int:
        return sum(isinstance(event, Reset | Step) for event in self.events)

    def fitting(self, world: World) -> tuple[Script, str]:
        """This script for another world, and what had to be changed for it; "" for nothing.

        A start video that the world does not have becomes its best one.
        """
        reset = self.events[0]
        assert isinstance(reset, Reset), "a script begins with a reset"
        start, count = reset.start, world.spec.num_starts
        if not isinstance(start, int) or start < count:
            return self, ""
        number = best_start(world.parts)
        instead = "its best one" if number is not None else "its own beginning"
        told = (
            f"{world.spec.name} has {count} start videos, not number {start} of {self.path.name}: "
            f"{instead} is taken"
        )
        events = (replace(reset, start=number), *self.events[1:])
        return replace(self, events=events), told

    def session(self, world: World, source: str | None = None) -> Session:
        """The script as a session yet to be performed.

        Args:
            world: on which it will be.
            source: what that was loaded by, where it is not what the script says.

        Raises:
            ValueError: the world does not understand what the script says; with the line.
        """
        header = Header.of(world, source or self.world)
        events, lines = self.events, self.lines
        if self.strict:
            events, lines = read_events(events, lines, world.interpreter, f"{self.path}, line")
        return Session(header, events, lines, self.path)


def read_script(path: str | Path) -> Script:
    """Read and check a script.

    Raises:
        FileNotFoundError: there is no such file, or a start file of it is missing.
        ValueError: what is wrong, with the line.
    """
    path = Path(path)
    root = read_nodes(path)
    top = root.mapping("a script", _TOP)
    require("world" in top, f"{root.where}: a script needs a world")
    require("script" in top, f"{root.where}: a script needs a script: a list of what happens")
    size = top["frame_size"].size() if "frame_size" in top else None
    plan = _Plan(top["steer"].choice("now", "queue") if "steer" in top else "now")
    reset = Reset(
        seeds=(top["seed"].whole(0) if "seed" in top else 0,),
        scene=top["scene"].text() if "scene" in top else None,
        start=_start(top["start"], path.parent) if "start" in top else None,
    )
    plan.add(reset, top["world"])
    if "title" in top:
        plan.add(Note(top["title"].text()), top["title"])
    plan.entries(top["script"])
    end = top["length"].whole(1) if "length" in top else None
    plan.finish(end, top.get("length", root))
    return Script(
        path=path,
        world=top["world"].text(),
        title=top["title"].text() if "title" in top else path.stem,
        events=tuple(plan.events),
        lines=tuple(plan.lines),
        num_steps=top["num_steps"].whole(1) if "num_steps" in top else None,
        window_size=top["window_size"].whole(1) if "window_size" in top else None,
        frame_size=size,
        strict=top["strict"].choice("true", "false") == "true" if "strict" in top else True,
    )


class _Plan:
    """Events as they are put one after the other."""

    def __init__(self, steer: str) -> None:
        self.events: list[Event] = []
        self.lines: list[int] = []
        self.chunk = 0
        self._steer = steer

    def add(self, event: Event, node: Node) -> None:
        require(len(self.events) < 2 * MAX_CHUNKS, f"{node.where}: the script is too long")
        self.events.append(event)
        self.lines.append(node.line)

    def entries(self, node: Node) -> None:
        items = node.items()
        require(bool(items), f"{node.where}: the list is empty; say something")
        for item in items:
            self._entry(item)

    def finish(self, end: int | None, node: Node) -> None:
        if end is not None:
            require(
                end >= self.chunk, f"{node.where}: length is {end}, but chunk {self.chunk} is used"
            )
            self._go_on_to(end, node)
        require(self.chunk > 0, f"{node.where}: the script makes no chunk")

    def _entry(self, item: Node) -> None:
        given = item.mapping("an entry", tuple(dict.fromkeys(sum(_ENTRIES.values(), ()))))
        kind = next((name for name in _ENTRIES if name in given), None)
        if kind is None:
            raise ValueError(f"{item.where}: an entry needs one of {', '.join(_ENTRIES)}")
        for name, value in given.items():
            require(
                name in _ENTRIES[kind],
                f"{value.where}: {name!r} does not go with {kind!r}",
            )
        if "at" in given:
            at = given["at"].whole(1)
            require(
                at > self.chunk,
                f"{given['at'].where}: at is {at}, but chunk {self.chunk} was made before; "
                f"{self.chunk + 1} is the first that is free",
            )
            self._go_on_to(at - 1, given["at"])
        if "note" in given:
            self.add(Note(given["note"].text()), given["note"])
        if kind == "repeat":
            require("do" in given, f"{item.where}: repeat needs do: the entries to repeat")
            times = given["repeat"].whole(1)
            require(
                times <= MAX_CHUNKS, f"{item.where}: repeat is {times}; it may be {MAX_CHUNKS:,}"
            )
            for _ in range(times):
                before = len(self.events)
                self.entries(given["do"])
                require(len(self.events) > before, f"{item.where}: what is repeated does nothing")
        elif kind == "fork":
            self._fork(given)
        elif kind in ("say", "for"):
            self._say(given, given[kind])

    def _say(self, given: dict[str, Node], node: Node) -> None:
        say = given["say"].text() if "say" in given else None
        steer = given["steer"].choice("now", "queue") if "steer" in given else self._steer
        for _ in range(given["for"].whole(1) if "for" in given else 1):
            self._step(say, steer, node)
            say = None

    def _fork(self, given: dict[str, Node]) -> None:
        node = given["fork"]
        says = tuple(item.text() for item in node.items())
        require(2 <= len(says) <= 16, f"{node.where}: a fork needs 2 to 16 commands")
        kept = 0
        if "keep" in given:
            name = given["keep"].text()
            require(
                name in says, f"{given['keep'].where}: keep is {name!r}; it must be one of {says}"
            )
            kept = says.index(name)
        self.add(Fork(len(says)), node)
        for i in range(given["for"].whole(1) if "for" in given else 1):
            self._step(says if i == 0 else None, "now", node)
        self.add(Keep(kept), given.get("keep", node))

    def _go_on_to(self, chunk: int, node: Node) -> None:
        while self.chunk < chunk:
            self._step(None, self._steer, node)

    def _step(self, say: str | tuple[str, ...] | None, steer: str, node: Node) -> None:
        require(self.chunk < MAX_CHUNKS, f"{node.where}: more than {MAX_CHUNKS:,} chunks")
        self.chunk += 1
        how: Literal["now", "queue"] = "now" if steer == "now" else "queue"
        self.add(Step(self.chunk, say, how), node)


def _start(node: Node, folder: Path) -> Any:
    """Of a reset: a number, "text", or a file."""
    if not node.is_mapping:
        return "text" if node.is_text("text") else node.whole(0, 'or "text", or {image: FILE}')
    given = node.mapping("a start", ("image", "video"))
    require(len(given) == 1, f"{node.where}: a start is one image or one video")
    kind: Literal["image", "video"] = "image" if "image" in given else "video"
    file = given[kind]
    path = folder / file.text()
    if not path.is_file():
        what = "is no plain file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{file.where}: {path} {what}")
    return StartFile(kind, file.text(), StartFile.of(path, kind).sha256)
