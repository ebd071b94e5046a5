"""Who is told what was played: files on disk, and messages in the window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from magi_world.demos.window.jobs import Moment, Opened
from magi_world.io.media import VideoConfig, VideoWriter
from magi_world.session.events import Event
from magi_world.session.session import SessionWriter
from magi_world.world.spec import WorldSpec


class Watcher:
    """Told what was played, in order: each chunk when it is first shown."""

    def opened(self, opened: Opened) -> None:
        """Another world is open; its reset follows."""

    def happened(self, event: Event, moments: Sequence[Moment] = ()) -> None:
        """An event, and the chunks that are now part of what was played."""

    def close(self) -> None:
        """The end."""


Level = Literal["info", "refused", "error"]
LONGEST, MOST = 300, 4  # characters of a notice; notices at a time
SECONDS: dict[Level, float] = {"info": 4.0, "refused": 7.0, "error": 9.0}


@dataclass(frozen=True)
class Notice:
    """text, how bad, and the time at which it goes; None until somebody could have seen it."""

    text: str
    level: Level
    until: float | None = None


class Notices:
    """The messages that are still shown, the newest last."""

    def __init__(self) -> None:
        self._notices: list[Notice] = []

    def tick(self, now: float) -> None:
        # What takes long, such as ending a film, must not use up the time of what it reports.
        timed = [
            n if n.until is not None else replace(n, until=now + SECONDS[n.level])
            for n in self._notices
        ]
        self._notices = [n for n in timed if n.until is not None and n.until > now]

    def info(self, text: str) -> None:
        self._add(text, "info")

    def refuse(self, text: str) -> None:
        self._add(text, "refused")

    def error(self, text: str) -> None:
        self._add(text, "error")

    def dismiss(self) -> bool:
        """Take errors away; whether there was one."""
        kept = [n for n in self._notices if n.level != "error"]
        found = len(kept) < len(self._notices)
        self._notices = kept
        return found

    @property
    def shown(self) -> tuple[Notice, ...]:
        return tuple(self._notices)

    def _add(self, text: str, level: Level) -> None:
        self._notices = [n for n in self._notices if n.text != _shortened(text)]
        self._notices.append(Notice(_shortened(text), level))
        del self._notices[:-MOST]


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."


class Audience(list[Watcher]):
    """All who are told. One that fails is shown and dropped; the play goes on."""

    def __init__(self, watchers: Iterable[Watcher], notices: Notices) -> None:
        super().__init__(watchers)
        self._notices = notices

    def opened(self, opened: Opened) -> None:
        self._all(lambda w: w.opened(opened))

    def happened(self, event: Event, moments: Sequence[Moment] = ()) -> None:
        self._all(lambda w: w.happened(event, moments))

    def close(self) -> None:
        self._all(lambda w: w.close())

    def _all(self, tell: Callable[[Watcher], None]) -> None:
        for watcher in list(self):
            try:
                tell(watcher)
            except Exception as error:
                self.remove(watcher)
                self._notices.error(str(error) or type(error).__name__)


class Background:
    """Calls in order in one thread of its own; an error comes back with the next call."""

    def __init__(self, name: str) -> None:
        """``name`` of the thread."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._calls: list[Future[None]] = []

    def call(self, function: Callable[[], None]) -> None:
        """Do it later. Raises Exception: what an earlier call raised."""
        self._calls.append(self._pool.submit(function))
        self._check()

    def finish(self) -> None:
        """Wait for all of them. Raises Exception: what a call raised."""
        self._pool.shutdown(wait=True)
        self._check()

    def _check(self) -> None:
        done = [call for call in self._calls if call.done()]
        self._calls = [call for call in self._calls if not call.done()]
        for call in done:
            call.result()


class Film(Watcher):
    """An MP4 of what is shown, from the chunk in which it is switched on."""

    def __init__(self, path: Path, spec: WorldSpec, upscale: int | None = None) -> None:
        """Opens the file. ``upscale``: see `VideoConfig`.
        Raises ValueError, OSError: the file cannot be written.
        """
        self.path = path
        self._writer = VideoWriter(path, VideoConfig(spec.fps, spec.frame_size, upscale))
        self._background = Background("film")

    def happened(self, event: Event, moments: Sequence[Moment] = ()) -> None:
        for moment in moments:
            self.add(moment)

    def add(self, moment: Moment) -> None:
        self._background.call(lambda: self._writer.write(moment.shown_frames))

    def close(self) -> None:
        try:
            self._background.finish()
        finally:
            self._writer.close()


class SessionFile(Watcher):
    """The session as a file that replays; a new file for each world that is opened."""

    def __init__(self, path: Path) -> None:
        """``path`` is that of the first file; later ones get a number."""
        self.path = path
        self._first, self._count = path, 0
        self._writer: SessionWriter | None = None
        self._background = Background("session")

    def opened(self, opened: Opened) -> None:
        """Begin a file. Raises FileExistsError: it is there already."""
        self._count += 1
        if self._writer is not None:
            self.path = self._first.with_stem(f"{self._first.stem}-{self._count}")
            self._background.call(self._writer.close)
        self._writer = SessionWriter(self.path, opened.world, opened.source)

    def happened(self, event: Event, moments: Sequence[Moment] = ()) -> None:
        if self._writer is not None:
            self._background.call(partial(self._writer.write, event))

    def close(self) -> None:
        self._background.finish()
        if self._writer is not None:
            self._writer.close()
