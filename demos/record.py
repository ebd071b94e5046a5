"""Scripts and sessions become films: MP4, GIF or a contact sheet, with a session file beside them.

The same script, world and seed give the same film. What was interrupted is playable, and can be
resumed; the resumed film is the same, byte for byte, as one that was never interrupted.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from magi_world.config import require
from magi_world.demos.outputs import ENDINGS, check_ending, open_output
from magi_world.demos.render import Painter, PictureConfig
from magi_world.demos.resume import ResumeFolder
from magi_world.interrupts import Stopped, clean_stop
from magi_world.session.events import (
    Event,
    Fork,
    Keep,
    Load,
    Note,
    Reset,
    Said,
    StartFile,
    Step,
    frames_digest,
)
from magi_world.session.player import SessionPlayer, Verdict, check_batch, rewound_to, verify
from magi_world.session.session import Session, SessionWriter, step_event
from magi_world.world.chunk import Chunk
from magi_world.world.snapshot import Snapshot
from magi_world.world.world import World

# Chunks that take longer than this show their denoising steps.
SLOW_SECONDS = 2.0
# Events after which going on needs the newest state only.
_PLAIN = Reset | Step | Said | Note | Fork | Keep


@dataclass(frozen=True)
class RecordConfig:
    """How to record.

    overwrite: replace files that are there.    resume: go on with an interrupted recording.
    write_session: put a session file beside the film.    quiet: no progress bar.
    """

    picture: PictureConfig = field(default_factory=PictureConfig)
    overwrite: bool = False
    resume: bool = False
    write_session: bool = True
    quiet: bool = False


@dataclass(frozen=True)
class Recording:
    """What `record` made.

    finished: False if it was stopped.    chunks, frames: in the files.
    seconds: that it took.    video_seconds: that it plays.
    """

    outputs: tuple[str, ...]
    session: str | None
    finished: bool
    chunks: int
    frames: int
    seconds: float
    video_seconds: float
    size: tuple[int, int]


def record(
    session: Session, world: World, outputs: Sequence[str | Path], config: RecordConfig
) -> Recording:
    """Perform a session, or a script as one, and write it to files.

    Ctrl-C (or SIGTERM) stops at the next denoising step and leaves all files playable.

    Args:
        session: its events are performed on ``world``, whatever world its header names.
        outputs: .mp4, .gif or .png files; the session file is named after the first.

    Raises:
        ValueError: an output that cannot be, or an event that this world cannot perform.
        FileExistsError: an output is there, and neither ``overwrite`` nor ``resume`` was given.
    """
    check_batch(session, world)
    require(world.num_worlds == 1, f"a film is of one world; this has {world.num_worlds}")
    files, beside = check_outputs(outputs, config, session)
    folder = ResumeFolder(files[0].with_name(files[0].name + ".resume"), session)
    with folder.alone():
        made = _Film(session, world, files, beside, config, folder).run()
    return made


def check_outputs(
    outputs: Sequence[str | Path], config: RecordConfig, session: Session | None = None
) -> tuple[list[Path], Path | None]:
    """The files of a recording and the session file beside them, before anything is loaded.

    Of a session that is itself the file beside them, the file stays as it is, and there is none.

    Raises:
        ValueError: none, an ending that is not known, one twice, or a file that the session needs.
        FileExistsError: one is there, and neither ``overwrite`` nor ``resume`` was given.
    """
    files = [Path(output) for output in outputs]
    require(bool(files), f"outputs is empty; name a file that ends in {', '.join(ENDINGS)}")
    for file in files:
        check_ending(file)
        require(not file.is_dir(), f"output is {file}, which is a folder")
    require(len({f.resolve() for f in files}) == len(files), f"outputs names a file twice: {files}")
    beside = files[0].with_suffix(".session.jsonl") if config.write_session else None
    if session is not None:
        if beside is not None and _same(beside, session.path):
            beside = None
        for file in (*files, *filter(None, [beside])):
            for source in _sources(session):
                require(not _same(file, source), f"output is {file}, which the session starts from")
    for file in (*files, *filter(None, [beside])):
        if file.exists() and not (config.overwrite or config.resume):
            raise FileExistsError(
                f"{file} exists; give --overwrite to replace it, or --resume if it was interrupted"
            )
    return files, beside


def _same(one: Path, other: Path | None) -> bool:
    return other is not None and one.resolve() == other.resolve()


def _sources(session: Session) -> list[Path]:
    starts = [e.start for e in session.events if isinstance(e, Reset)]
    paths = [session.folder / start.path for start in starts if isinstance(start, StartFile)]
    loads = [session.folder / e.path for e in session.events if isinstance(e, Load) and e.path]
    return [*paths, *loads, *filter(None, [session.path])]


class _Film:
    """One recording in progress."""

    def __init__(
        self,
        session: Session,
        world: World,
        files: Sequence[Path],
        beside: Path | None,
        config: RecordConfig,
        folder: ResumeFolder,
    ) -> None:
        self.session, self.world, self.config, self.folder = session, world, config, folder
        self.files, self.beside = files, beside
        self.painter = Painter(
            world.spec.frame_size, config.picture, session.events, world.spec.fps
        )
        self.total = sum(isinstance(e, Reset | Step) for e in session.events)
        self._asked: Callable[[], bool] = lambda: False  # whether to stop
        marks = rewound_to(session.events)
        self.player = SessionPlayer(world, session.folder, marks, self._step_done)
        self.resumable = all(isinstance(e, _PLAIN) for e in session.events)
        self.chunks = self.frames = 0
        # Number of the last event that was performed; in a fork, the state before it, its number.
        self.done = -1
        self.before_fork: Snapshot | None = None
        self.fork = -1
        self._began = time.monotonic()

    def run(self) -> Recording:
        begin = time.monotonic()
        snapshot = self.folder.resume() if self.config.resume else None
        if not self.config.resume:
            self.folder.begin()
        finished = False
        there = [f for f in (*self.files, self.beside) if f is not None and f.exists()]
        try:
            finished = self._run(snapshot)
        except ValueError:
            if self.config.resume:  # what was made earlier was right
                raise
            # The script is wrong: what was made of it is in the way of the corrected one.
            self.folder.remove()
            for file in {*self.files, self.beside} - {None, *there}:
                assert file is not None
                file.unlink(missing_ok=True)
            raise
        # Only now are all files complete; until then there was something to go on from.
        if finished or self.folder.empty:
            self.folder.remove()
        beside = self.beside or self._own_session()
        return Recording(
            outputs=tuple(str(f) for f in self.files),
            session=str(beside) if beside else None,
            finished=finished,
            chunks=self.chunks,
            frames=self.frames,
            seconds=time.monotonic() - begin,
            video_seconds=self.frames / self.world.spec.fps,
            size=self.painter.size,
        )

    def _own_session(self) -> Path | None:
        """The session that is played, where it lies beside the film already."""
        name = self.files[0].with_suffix(".session.jsonl")
        return name if self.config.write_session and _same(name, self.session.path) else None

    def _run(self, snapshot: Snapshot | None) -> bool:
        """Whether it came to the end; the files are closed in any case."""
        with ExitStack() as stack:
            self.outputs = [
                open_output(f, self.painter.size, self.world.spec.fps, self.total)
                for f in self.files
            ]
            for output in self.outputs:
                stack.callback(output.close)
            self.writer = self._session_writer(stack)
            self.bar = stack.enter_context(self._bar())
            self._asked = stack.enter_context(clean_stop("stopping; once more stops at once"))
            try:
                for number in range(self.folder.done + 1):
                    self._check()
                    self._again(number)
                if snapshot is not None:
                    self.world.restore(snapshot)
                for number in range(self.folder.done + 1, len(self.session.events)):
                    self._check()
                    self._perform(number)
            except Stopped:
                self._keep_last_state()
                return False
        return True

    def _again(self, number: int) -> None:
        event = self.session.events[number]
        chunk = self.folder.chunk(number, self.world.device)
        if chunk is not None and chunk.pixels is None:
            chunk = self.world.decode(chunk)
        self._show(event, chunk)
        self.done = number

    def _perform(self, number: int) -> None:
        event = self.session.events[number]
        self._began = time.monotonic()
        if isinstance(event, Fork) and self.resumable:
            self.before_fork, self.fork = self.world.snapshot(), number
        try:
            chunk = self.player.perform(event)
        except ValueError as error:
            raise ValueError(f"{self.session.where(number)}: {error}") from error
        if chunk is not None and self.resumable:
            self.folder.keep_chunk(number, chunk, pixels=isinstance(event, Reset))
        self._show(event, chunk)
        self.done = number
        if self.resumable and self.player.futures is None:
            self.before_fork = None
            # Of a world that has lost a process no state can be had: the first is kept at once.
            first = self.world.parts.processes > 1 and self.folder.empty
            self.folder.keep_state(number, self.world.snapshot(), always=first)

    def _keep_last_state(self) -> None:
        """The recording was stopped; what was made up to here will not be made again."""
        if self.before_fork is not None:
            self.folder.keep_state(self.fork - 1, self.before_fork, always=True)
        elif self.resumable and self.done > self.folder.done:
            self.folder.keep_state(self.done, self.world.snapshot(), always=True)

    def _show(self, event: Event, chunk: Chunk | None) -> None:
        self.painter.remark(event)
        if self.writer is not None:
            self.writer.write(self._as_performed(event, chunk))
        if chunk is None:
            return
        frames = self.painter.paint(chunk)
        for output in self.outputs:
            output.write(frames)
        self.chunks, self.frames = self.chunks + 1, self.frames + len(frames)
        self.bar.update()
        self.bar.set_postfix_str(" | ".join(dict.fromkeys(chunk.prompts)), refresh=False)

    def _as_performed(self, event: Event, chunk: Chunk | None) -> Event:
        if chunk is None or self.beside is None:
            return event
        digest = frames_digest(chunk.frames)
        if isinstance(event, Step):
            return step_event(chunk, event.steer, digest)
        assert isinstance(event, Reset)
        start = event.start
        if isinstance(start, StartFile):
            path = os.path.relpath(self.session.folder / start.path, self.beside.parent)
            start = replace(start, path=path)
        return replace(event, start=start, digest=digest)

    def _session_writer(self, stack: ExitStack) -> SessionWriter | None:
        if self.beside is None:
            return None
        self.beside.unlink(missing_ok=True)
        source = self.session.header.world
        return stack.enter_context(SessionWriter(self.beside, self.world, source))

    def _bar(self) -> tqdm:
        return tqdm(
            total=self.total,
            unit="chunk",
            desc=self.files[0].name,
            disable=self.config.quiet,
            file=sys.stderr,
            dynamic_ncols=True,
            mininterval=0.1 if sys.stderr.isatty() else 5.0,
        )

    def _check(self) -> None:
        if self._asked():
            raise Stopped

    def _step_done(self, done: int, steps: int) -> None:
        self._check()
        if time.monotonic() - self._began > SLOW_SECONDS:
            self.bar.set_postfix_str(f"denoising step {done} of {steps}")


def verify_session(session: Session, world: World, quiet: bool = False) -> Verdict:
    """Replay a session with a progress bar, up to its end or the first difference.
    Raises ValueError: an event that this world cannot perform; the message names its line.
    """
    total = sum(isinstance(event, Reset | Step) for event in session.events)
    with tqdm(total=total, unit="chunk", desc="replay", disable=quiet, file=sys.stderr) as bar:
        for made in verify(session, world):
            if isinstance(made, Verdict):
                return made
            bar.update()
    raise RuntimeError("the comparison gave no verdict")


def verdict_text(verdict: Verdict) -> str:
    if verdict.difference is None:
        if not verdict.compared:
            return "nothing to compare: the session holds no checksums"
        return f"identical: {verdict.compared} chunks, byte for byte"
    lines = [f"differs: {verdict.difference}"]
    lines += [f"  {cause}" for cause in verdict.causes]
    if not verdict.causes:
        lines.append("  versions, device and world are the same: the session has been edited")
    return "\n".join(lines)
