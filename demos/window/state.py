"""What is beside the play: overlays, the text line, tips, files. No pygame, no drawing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from PIL import Image

from magi_world.demos.steering import RANDOM
from magi_world.demos.window import jobs
from magi_world.demos.window.player import Player
from magi_world.demos.window.watchers import Film
from magi_world.demos.window.widgets import Previews, TextLine
from magi_world.io.media import VideoConfig, enlarge
from magi_world.world.spec import Command

SECONDS = 90.0  # after which they go away by themselves


@dataclass(frozen=True)
class Tip:
    """One thing to try.

    name: for telling them apart.    keys: to press.    words: what that does.
    does: the same by a click.
    """

    name: str
    keys: tuple[str, ...]
    words: str
    does: Callable[[], object]


class Tips:
    """What to try, until all of it was tried, it was sent away, or time is up."""

    def __init__(self) -> None:
        self.closed = False
        self.tried: set[str] = set()
        self._since: float | None = None

    def close(self) -> None:
        self.closed = True

    def did(self, name: str) -> None:
        self.tried.add(name)

    def shown(self, player: Player, say: Callable[[str], object]) -> list[Tip]:
        """The three, as this world has them; none when they are not wanted any more."""
        if player.opened is None or player.moment is None or self.closed:
            return []
        self._since = player.now if self._since is None else self._since
        tips = [_steer(player), _type(player, say), _company(player)]
        known = [tip for tip in tips if tip is not None]
        if player.now - self._since > SECONDS or all(tip.name in self.tried for tip in known):
            self.closed = True
        return known


def _steer(player: Player) -> Tip | None:
    keymap = player.steering.keymap
    keyed = [(c.name, keymap.keys_of(c.name)) for c in _commands(player)]
    for arrow in ("up", "left", "right", "down"):
        for name, keys in keyed:
            if arrow in keys:
                return Tip("steer", (arrow,), f"hold it to {name}", partial(player.tap, name))
    return None


def _type(player: Player, say: Callable[[str], object]) -> Tip:
    """Something that no arrow does comes first: it shows what words are for."""
    keymap, commands = player.steering.keymap, _commands(player)
    others = [c.name for c in commands if c.name != player.steering.default]
    goals = [name for name in others if keymap.lasting(name)]
    text = next(iter(goals or others), "what happens next")
    return Tip("type", ("return",), f'and type "{text}"', lambda: say(text))


def _company(player: Player) -> Tip:
    following = player.controllers.following
    if following not in (player.controllers.name, RANDOM):
        return Tip("company", ("c",), f"let {following} play for you", player.hand_over)
    return Tip("fork", ("f",), "see four futures side by side", player.what_if)


def _commands(player: Player) -> tuple[Command, ...]:
    return () if player.opened is None else player.opened.spec.commands


Overlay = Literal["", "help", "worlds", "slots"]
SLOTS = tuple(range(1, 10))
SLASH = {
    "/seed": "/seed NUMBER: begin with this seed",
    "/scene": "/scene TEXT: begin anew in this scene",
    "/start": "/start NUMBER: from a start video, best or text",
    "/image": "/image FILE: begin with this picture",
    "/world": "/world NAME: open another world",
    "/save": "/save 1 .. 9: save this moment",
    "/load": "/load 1 .. 9, FILE: go on from a saved one",
    "/quit": "/quit: close the window",
}


@dataclass(frozen=True)
class StateConfig:
    """folder: of films, pictures and sessions.    stamp: gives the names of files their ending.
    upscale: whole factor for films and pictures; None picks one.    hud: figures at first.
    """

    folder: Path = Path("recordings")
    stamp: Callable[[], str] = field(default=lambda: "now")
    upscale: int | None = None
    hud: bool = False


class AppState:
    """Everything that is not the play itself."""

    def __init__(self, player: Player, worlds: Sequence[str], config: StateConfig) -> None:
        """``worlds``: names that can be opened."""
        self.player, self.worlds, self.config = player, list(worlds), config
        self.line = TextLine(self._words)
        self.overlay: Overlay = ""
        self.picked = 0
        self.hud = config.hud
        self.smooth, self.fullscreen, self.quit = True, False, False
        self.tips, self.previews = Tips(), Previews()
        # The place in the queue that the line replaces, while one of its chips is being changed.
        self.changing: int | None = None
        self.window_shot: Path | None = None
        self._film: Film | None = None
        self._quit_until = 0.0

    @property
    def film(self) -> Film | None:
        return self._film if self._film in self.player.watchers else None

    def show(self, overlay: Overlay) -> None:
        self.overlay = "" if self.overlay == overlay else overlay
        if self.overlay == "worlds":
            opened = self.player.opened
            name = "" if opened is None else opened.source
            self.picked = self.worlds.index(name) if name in self.worlds else 0

    def submit(self) -> None:
        text = self.line.submit()
        if not text:
            return
        try:
            self.say(text)
        except (ValueError, OSError) as error:
            self.player.notices.error(str(error))
        self.changing = None

    def choose(self, text: str) -> None:
        """A completion was clicked; an instruction that still needs a value stays in the line."""
        if text.startswith("/") and text not in ("/quit",) and " " not in text:
            self.line.start(f"{text} ")
        else:
            self.line.start(text)
            self.submit()

    def write(self) -> None:
        if not self.line.open:
            self.line.start()

    def edit_step(self, place: int) -> None:
        """What waits in the queue is written into the line; Enter puts it back there."""
        queue = self.player.steering.queue
        if place < len(queue):
            step = queue[place]
            times = "" if step.chunks is None else f" for {step.chunks} chunks"
            self.line.start(step.command + times)
            self.changing = place

    def tap(self, command: str) -> None:
        """A command was clicked: one that is steered shapes a chunk, another is as if typed."""
        self.tips.did("steer")
        if self.player.steering.keymap.lasting(command):
            self.player.say(command)
        else:
            self.player.tap(command)

    def key(self, key: str) -> bool:
        """A key of the world went down; whether it has a meaning."""
        keymap = self.player.steering.keymap
        command = keymap.command([key]) if key.isdigit() else None
        if command is not None:
            self.player.say(command)
        meant = command is not None or self.player.press(key)
        if meant:
            self.tips.did("steer")
        return meant

    def hand_over(self) -> None:
        self.tips.did("company")
        self.player.hand_over()

    def what_if(self) -> None:
        self.tips.did("fork")
        self.player.what_if()

    def try_tip(self, tip: Tip) -> None:
        self.tips.did(tip.name)
        try:
            tip.does()
        except ValueError as error:
            self.player.notices.error(str(error))

    def pick_future(self, row: int) -> None:
        """A future was clicked: the first click marks it, the second keeps it."""
        futures = self.player.futures
        if futures is not None and row == futures.selected:
            self.player.keep(row)
        elif futures is not None:
            futures.select(row)

    def further(self) -> None:
        futures = self.player.futures
        if futures is not None and not futures.further():
            self.player.notices.info(f"{futures.limit} chunks ahead is as far as it goes")

    def seek(self, position: int) -> None:
        if position != self.player.playback.timeline.position:
            self.player.seek(position)
        elif not self.player.playback.paused:
            self.player.pause(True)

    def say(self, text: str) -> None:
        """Words for the world, or an instruction that begins with a slash.
        Raises ValueError: no such instruction, or not for this value.
        """
        name, _, rest = text.partition(" ")
        rest = rest.strip()
        if not name.startswith("/") and self.changing is not None:
            self._change(self.changing, text)
        elif not name.startswith("/"):
            self.tips.did("type")
            self.player.say(text)
        elif name not in SLASH:
            raise ValueError(f"{name} is not known here; there are {', '.join(SLASH)}")
        elif name == "/quit":
            self.quit = True
        elif not rest:
            raise ValueError(f"{name} needs a value. {SLASH[name]}")
        else:
            self._instruct(name, rest)

    def new_seed(self, again: bool = False) -> None:
        start = self.player.start
        if again:
            self.player.begin(start)
        else:
            # Another seed is another place, unless the world begins from text or a picture.
            place: Literal["text"] | None = "text" if start.start == "text" else None
            self.player.begin(jobs.Start(None, start.scene, start.image, place))

    def open_picked(self) -> None:
        self.overlay = ""
        if self.worlds:
            self.player.open(jobs.Open(self.worlds[self.picked], jobs.Start(start="best")))

    def open_world(self, number: int) -> None:
        self.picked = number
        self.open_picked()

    def save(self, slot: int) -> None:
        self.overlay = ""
        self.player.save(slot)

    def load(self, slot: int) -> None:
        self.overlay = ""
        path = self.player.slots.path(slot) if self.player.slots else None
        if path is None or not path.is_file():
            words = f"slot {slot} is empty; Ctrl + {slot} saves this moment in it"
            self.player.notices.error(words)
        else:
            self.player.load(path, slot)

    def record(self) -> None:
        player = self.player
        film = self.film
        if film is not None:
            player.watchers.remove(film)
            self._film = None
            try:
                film.close()
                player.notices.info(f"film saved: {film.path}")
            except (ValueError, OSError) as error:
                player.notices.error(str(error))
        else:
            self.start_film(self._path(".mp4"))

    def start_film(self, path: Path) -> None:
        """Record to this file, from the chunk that is shown; without one, do nothing."""
        opened, moment = self.player.opened, self.player.moment
        if opened is None or moment is None:
            return
        try:
            film = Film(path, opened.spec, self.config.upscale)
            film.add(moment)
        except (ValueError, OSError) as error:
            self.player.notices.error(f"no film: {error}")
            return
        self._film = film
        self.player.watchers.append(film)
        self.player.notices.info(f"filming to {path}; R ends the film")

    def screenshot(self, window: bool = False) -> None:
        """Save the picture of the world, or the whole window when it has been drawn next."""
        frame, opened = self.player.playback.frame, self.player.opened
        if window:
            self.window_shot = self._path("-window.png")
        elif frame is not None and opened is not None:
            form = VideoConfig(opened.spec.fps, opened.spec.frame_size, self.config.upscale)
            path = self._path(".png")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(enlarge(frame, form.factor)).save(path)
            except OSError as error:
                self.player.notices.error(f"no picture: {error}")
                return
            self.player.notices.info(f"picture saved: {path}")

    def drop(self, path: Path) -> None:
        """A file was dropped on the window: a picture to begin with, or a saved moment."""
        if self.player.opened is None:
            self.player.notices.error("no world is open; pick one first")
        elif path.suffix.lower() == ".safetensors":
            self.player.load(path)
        else:
            start = self.player.start
            self.player.begin(jobs.Start(start.seed, start.scene, image=path))
            self.player.notices.info(
                "begins with your picture; the world goes on from it with the places it knows"
            )

    def escape(self) -> None:
        """Close what is open; with nothing open, twice quits."""
        player = self.player
        if self.line.open:
            self.line.close()
        elif self.overlay:
            self.overlay = ""
        elif player.notices.dismiss():
            pass
        elif player.futures is not None:
            player.what_if()
        elif player.now < self._quit_until:
            self.quit = True
        else:
            self._quit_until = player.now + 2.5
            player.notices.info("Esc again to quit")

    def _instruct(self, name: str, rest: str) -> None:
        start = self.player.start
        if name == "/seed":
            seed = _whole(name, rest)
            self.player.begin(jobs.Start(seed, start.scene, start.image, start.start))
        elif name == "/scene":
            self.player.begin(jobs.Start(start.seed, rest, start.image, start.start))
        elif name == "/start":
            self.player.begin(jobs.Start(start.seed, start.scene, start=_place(name, rest)))
        elif name == "/image":
            self.drop(Path(rest).expanduser())
        elif name == "/world":
            self.player.open(jobs.Open(rest, jobs.Start(start="best")))
        elif name == "/load" and not rest.isdigit():
            self.player.load(Path(rest).expanduser())
        else:
            slot = _whole(name, rest)
            if slot not in SLOTS:
                raise ValueError(f"slot is {slot}; it must be 1 .. 9")
            self.save(slot) if name == "/save" else self.load(slot)

    def _change(self, place: int, text: str) -> None:
        reading, queue = self.player.read(text), self.player.steering.queue
        if reading is None or place >= len(queue):
            return
        if not reading.obeyed:
            self.player.notices.refuse(reading.answer)
            return
        # What is not the last must end, or nothing after it ever had its turn.
        last = place == len(queue) - 1
        steps = [s if s.chunks or last else replace(s, chunks=1) for s in reading.steps]
        self.player.edit_queue(place, steps)

    def _words(self) -> list[str]:
        opened = self.player.opened
        commands = () if opened is None else opened.spec.commands
        names = [c.name for c in commands]
        worlds = [f"/world {name}" for name in self.worlds]
        return [*names, *(p for c in commands for p in c.phrases), *SLASH, *worlds]

    def _path(self, ending: str) -> Path:
        name = "world" if self.player.opened is None else self.player.opened.spec.name
        stem = f"{name}-{self.config.stamp()}"
        path, number = self.config.folder / f"{stem}{ending}", 1
        while path.exists():
            number += 1
            path = self.config.folder / f"{stem}-{number}{ending}"
        return path


def _place(name: str, text: str) -> int | Literal["text", "best"]:
    if text == "text":
        return "text"
    return "best" if text == "best" else _whole(name, text)


def _whole(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{name} needs a whole number, not {text!r}. {SLASH[name]}")
    return int(text)
