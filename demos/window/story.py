"""Files written while playing: the session (JSON lines) and the film (MP4), off the main thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from magi_world.demos.window import jobs
from magi_world.demos.window.moment import Moment
from magi_world.demos.window.watching import Watcher
from magi_world.io.media import VideoConfig, VideoWriter
from magi_world.language import Reading
from magi_world.session.events import StartFile, file_digest
from magi_world.session.session import SessionWriter
from magi_world.world.chunk import Chunk
from magi_world.world.snapshot import Snapshot
from magi_world.world.spec import WorldSpec


class Background:
    """Calls in order in one thread of its own; an error comes back with the next call."""

    def __init__(self, name: str) -> None:
        """``name`` of the thread."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._calls: list[Future[None]] = []

    def call(self, function: Callable[[], None]) -> None:
        """Do it later.

        Raises:
            Exception: what an earlier call raised.
        """
        self._calls.append(self._pool.submit(function))
        self._check()

    def finish(self) -> None:
        """Wait for all of them.

        Raises:
            Exception: what a call raised.
        """
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

        Raises:
            ValueError, OSError: the file cannot be written.
        """
        self.path = path
        self._writer = VideoWriter(path, VideoConfig(spec.fps, spec.frame_size, upscale))
        self._background = Background("film")

    def begun(self, moment: Moment, start: jobs.Start) -> None:
        """The start frames."""
        self.add(moment)

    def played(self, answer: jobs.Stepped) -> None:
        """A chunk."""
        self.add(answer.moment)

    def loaded(self, answer: jobs.Loaded) -> None:
        """The chunk of the file."""
        self.add(answer.moment)

    def kept(self, answer: jobs.Kept) -> None:
        """The future that became real."""
        for moment in answer.moments:
            self.add(moment)

    def add(self, moment: Moment) -> None:
        """Write a chunk."""
        self._background.call(lambda: self._writer.write(moment.shown_frames))

    def close(self) -> None:
        """Finish the file."""
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
        self._slots: set[int] = set()

    def opened(self, answer: jobs.Opened) -> None:
        """Begin a file.

        Raises:
            FileExistsError: it is there already.
        """
        self._count += 1
        if self._count > 1:
            self.path = self._first.with_stem(f"{self._first.stem}-{self._count}")
            self._end_file()
        self._writer = SessionWriter(self.path, answer.world, answer.source)
        self._slots = set()

    def begun(self, moment: Moment, start: jobs.Start) -> None:
        """The reset, with what it began from."""
        image = None if start.image is None else StartFile.of(start.image.resolve(), "image")
        chunk = _chunk(moment.frames[None], moment.snapshot)
        assert start.start != "best", "it was settled which one that is"
        begin = start.start if image is None else image
        self._write(lambda w: w.reset(chunk, (moment.seed,), start.scene, begin))

    def played(self, answer: jobs.Stepped) -> None:
        """The command of a chunk."""
        chunk = _chunk(answer.moment.frames[None], answer.moment.snapshot)
        self._write(lambda w: w.step(chunk, answer.steer))

    def rewound(self, moment: Moment) -> None:
        """Where play goes on."""
        self._write(lambda w: w.rewind(moment.index))

    def saved(self, slot: int, chunk: int | None) -> None:
        """A slot."""
        self._slots.add(slot)
        self._write(lambda w: w.save(str(slot), chunk))

    def unsaved(self, slot: int) -> None:
        """From now on its file counts, whatever that holds."""
        self._slots.discard(slot)

    def loaded(self, answer: jobs.Loaded) -> None:
        """A slot of this session, or a file of an earlier one."""
        name, path = str(answer.slot or answer.path.stem), answer.path.resolve()
        if answer.slot in self._slots:
            self._write(lambda w: w.load(name))
        else:
            self._write(lambda w: w.load(name, path, file_digest(path)))

    def kept(self, answer: jobs.Kept) -> None:
        """The fork with all of its futures, so that it replays as it was computed."""
        job = answer.job
        self._write(lambda w: w.fork(len(job.commands)))
        for imagined in job.chunks:
            chunk = _chunk(imagined.frames, imagined.state)
            self._write(partial(SessionWriter.step, chunk=chunk))
        self._write(lambda w: w.keep(job.row))

    def said(self, reading: Reading) -> None:
        """What was typed, and what it was read as."""
        self._write(lambda w: w.said(reading))

    def note(self, text: str) -> None:
        """Who took over."""
        self._write(lambda w: w.note(text))

    def close(self) -> None:
        """Finish the file."""
        self._background.finish()
        if self._writer is not None:
            self._writer.close()

    def _write(self, what: Callable[[SessionWriter], None]) -> None:
        if (writer := self._writer) is not None:
            self._background.call(lambda: what(writer))

    def _end_file(self) -> None:
        if (writer := self._writer) is not None:
            self._background.call(writer.close)


def _chunk(frames: np.ndarray, snapshot: Snapshot) -> Chunk:
    """What the world gave when it came to this state; frames (n, T, H, W, 3)."""
    stories = snapshot.stories
    return Chunk(
        snapshot.state.newest_clean,
        index=tuple(s.steps for s in stories),
        prompts=tuple(s.command for s in stories),
        lands=tuple(s.lands for s in stories),
        skip=(0,) * len(stories),
        pixels=torch.from_numpy(frames),
    )
