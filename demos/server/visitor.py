"""One visitor in a browser: plays a world chunk by chunk, and does what is asked in between.

Everything here happens on the event loop; what takes long is awaited, and whatever is asked in the
meantime wakes the loop (`nudge`), which then looks again at what is wanted.

Shapes: n futures, T video frames, H, W pixels.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import traceback
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import numpy as np

from magi_world.demos.server.batching import Begin, Made, Served, Step
from magi_world.demos.server.config import ServeConfig
from magi_world.demos.server.pictures import Journey, Outbox, PictureHeader, Slots, encode, strips
from magi_world.demos.server.telling import Shown, Strips, Told
from magi_world.demos.steering import Steering
from magi_world.demos.timeline import Moment, Timeline
from magi_world.language import Reading
from magi_world.session import events
from magi_world.session.session import SessionWriter, step_event

NOTE = "served in a batch; a replay of this world alone may differ in the last bit"
RECENT = 32  # chunks that can be gone back to without a gap
LOOP_PAUSE = 0.5  # seconds between two showings of imagined futures
Job = Callable[[], Awaitable[None]]


@dataclass(eq=False)
class _Ahead:
    """The chunk after ``base``, which is being made."""

    base: Shown
    command: str | None
    answer: Future[Made]
    asked: float


class Visitor(Told):
    """The play of one visitor. `run` is its task; the other methods ask for things."""

    def __init__(self, visit: str, key: str, served: Served, config: ServeConfig) -> None:
        """Args:
        visit: names this play; whoever knows it may come back to it.
        key: under which the browser's saved moments are kept.
        """
        self.visit, self.config = visit, config
        self.outbox = Outbox()
        self.seen = monotonic()
        self.connected = False
        self.paused = self.resting = False
        self.delay: float | None = None
        self.futures: Strips | None = None
        self.picture: bytes | None = None
        self._key = key
        self._nudge = asyncio.Event()
        self.single = False
        self._asked_at: float | None = None
        self._said = monotonic()
        self._ahead: _Ahead | None = None
        self._jobs: list[Job] = []
        self._pace = 0.0
        self._session: Path | None = None
        self._writer: SessionWriter | None = None
        self.journey = Journey()
        self.open(served)

    # What can be asked

    def open(self, served: Served, begin: Begin | None = None) -> None:
        self._drop_ahead()
        self.served = served
        self.plan = Steering(served.keymap, served.spec.default_command)
        kept = max(2, self.config.limits.memory // max(1, served.alone.cache_bytes))
        self.past: Timeline[tuple[bytes, ...]] = Timeline(kept, recent=RECENT)
        spec = served.spec
        self.slots = Slots(self.config.folder / "slots", served.source, spec.fingerprint, self._key)
        self._end_session()
        if self.config.sessions:
            name = f"{Path(served.source).name}-{secrets.token_hex(6)}.jsonl"
            self._session = self.config.folder / "sessions" / name
        self.begin(begin or Begin(seed=secrets.randbits(31), start=served.best_start))

    def begin(self, begin: Begin) -> None:
        self.plan.clear()
        self._do(lambda: self._begin(begin))

    def load(self, slot: int) -> None:
        self.slots.path(slot)
        self.plan.clear()
        self._do(lambda: self._load(slot))

    async def save(self, slot: int) -> None:
        """Put the moment that is seen into a slot.
        Raises ValueError: no such slot, or nothing to save yet.
        """
        self.slots.path(slot)
        if (moment := self.past.current) is None:
            raise ValueError("nothing has been played yet, so there is nothing to save")
        await asyncio.to_thread(self.slots.save, slot, moment.snapshot, moment.frames[-1])
        # Meanwhile play has gone on, or even gone back and on.
        if moment in self.past.past:
            newest = self.past.at_end and moment is self.past.current
            self._write(events.Save(str(slot), None if newest else moment.index))

    def changed(self) -> None:
        self._asked_at = monotonic()
        if self.resting:
            self.pause(False)
            self.tell()
        if self.futures is not None:
            self.drop_futures()
        self.nudge()

    def pause(self, on: bool) -> None:
        if not on and self.futures is not None:
            self.drop_futures()
        self.paused, self.single, self.resting = on, False, False
        self._said, self._asked_at = monotonic(), None
        self.nudge()

    def step_once(self) -> None:
        self.paused, self.single, self.resting = True, True, False
        self.nudge()

    def rewind(self, index: int) -> None:
        """Stop, and go to the kept chunk nearest to ``index``."""
        self.drop_futures()
        self.paused, self.single, self.resting = True, False, False
        if (moment := self.past.go_to(index)) is not None:
            self._drop_ahead()
            self.show_still(moment)
        self.nudge()

    def what_if(self, commands: Sequence[str]) -> None:
        """Imagine futures of the moment that is seen; again: drop them."""
        if self.futures is not None or self.past.current is None:
            self.drop_futures()
            return
        self._drop_ahead()
        self.paused, self.resting = True, False
        self.futures = Strips(self.past.current, commands, self.served.spec)
        self.nudge()

    def drop_futures(self) -> None:
        if self.futures is not None:
            self.futures = None
            self.tell_futures()
            if self.past.current is not None:
                self.show_still(self.past.current)
            self.nudge()

    def keep(self, row: int) -> None:
        """One future becomes what is.
        Raises ValueError: nothing is imagined, or there is no such future.
        """
        futures = self.futures
        if futures is None or not futures.chunks:
            raise ValueError("no future has been imagined yet; keep one when it moves")
        futures.check(row)
        self.futures = None
        self._do(lambda: self._keep(futures, row))

    def note(self, reading: Reading) -> None:
        self._write(events.Said.of(reading))

    @property
    def session(self) -> Path | None:
        return None if self._writer is None else self._writer.path

    def nudge(self) -> None:
        self._nudge.set()

    def close(self) -> None:
        self._drop_ahead()
        self._end_session()
        self.journey.close()

    # The play

    async def run(self) -> None:
        while True:
            self._nudge.clear()
            try:
                await self._turn()
            except Exception as error:
                if not isinstance(error, ValueError | OSError):
                    # Not foreseen: the terminal gets the whole story, the page its last line.
                    traceback.print_exc()
                self.outbox.say("note", level="error", text=str(error) or type(error).__name__)
                self.paused, self.futures = True, None
                self.tell()

    async def _turn(self) -> None:
        if self._jobs:
            await self._jobs.pop(0)()
        elif self.futures is not None and self.connected:
            await self._imagine(self.futures)
        elif not self._going or self.past.current is None:
            await self._nudge.wait()
        elif self._left_alone(self.past.current):
            self._drop_ahead()
            self.paused = self.resting = True
            self.outbox.say(
                "note", level="info", text="the world rests until somebody says something"
            )
            self.tell()
        else:
            await self._advance(self.past.current)

    def _left_alone(self, moment: Shown) -> bool:
        """Whether nobody has said anything for so long that the picture rests."""
        default = self.served.spec.default_command
        if self.single or default is None or not (moment.command == self.plan.command == default):
            self._said = monotonic()
        return 0 < self.config.rest <= monotonic() - self._said

    @property
    def _going(self) -> bool:
        return self.connected and (not self.paused or self.single)

    async def _begin(self, begin: Begin) -> None:
        made = await self.served.make(self, begin)
        self.past.clear()
        self.journey.clear()
        moment = await self._moment(made)
        if self._writer is None and self._session is not None:
            served = self.served
            self._writer = SessionWriter(self._session, served.alone, served.source, False)
            self._write(events.Note(NOTE))
        self._write(events.Reset((moment.seed,), begin.scene, begin.start))
        self._stand_at(moment)

    async def _load(self, slot: int) -> None:
        state = await asyncio.to_thread(self.slots.load, slot)
        picture = self.slots.picture(slot)
        if picture is None:
            raise ValueError(f"slot {slot} has lost its picture; save it again")
        self.served.check(state)
        self.past.clear()
        path = self.slots.path(slot).resolve()
        digest = await asyncio.to_thread(events.file_digest, path)
        self._write(events.Load(str(slot), str(path), digest))
        self.paused = True
        self._stand_at(Moment((picture,), state))

    def _stand_at(self, moment: Shown) -> None:
        self.past.append(moment)
        self.journey.add(moment)
        self.tell_chunk(moment, 1)
        self.tell()
        self.show_still(moment)

    async def _advance(self, base: Shown) -> None:
        command = self.plan.command
        ahead = self._ahead
        if ahead is None or ahead.base is not base or ahead.command != command:
            ahead = self._ask(base, command)
        await self._first(ahead.answer)
        if not ahead.answer.done() or self._ahead is not ahead:
            return  # something else is wanted now
        self._ahead = None
        made = ahead.answer.result()
        moment = await self._moment(made, monotonic() - ahead.asked)
        if self.past.current is not base or self._jobs or self.futures is not None:
            return
        self._go_on_from_here()
        self.past.append(moment)
        self.journey.add(moment)
        self._write(step_event(moment.snapshot.prompts, "now"))
        self.plan.made(command)
        self._pace = 0.7 * self._pace + 0.3 * moment.seconds if self._pace else moment.seconds
        self.tell_chunk(moment, made.together)
        if not self.single:
            self._ask(moment, self.plan.command)
        await self._show(moment)
        if self.single and self.past.current is moment:
            self.single = False
            self.tell()

    def _ask(self, base: Shown, command: str | None) -> _Ahead:
        self._drop_ahead()
        answer = self.served.batcher.ask(self, Step(base.snapshot, command))
        self._ahead = _Ahead(base, command, answer, monotonic())
        return self._ahead

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.answer.cancel()
            self._ahead = None

    async def _first(self, answer: Future[Made]) -> None:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        answer.add_done_callback(lambda _: loop.call_soon_threadsafe(ready.set))
        waits = [asyncio.ensure_future(e.wait()) for e in (ready, self._nudge)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _show(self, moment: Shown) -> None:
        """Play the frames of a chunk, at the world's pace or as fast as chunks can be made."""
        spec, pictures = self.served.spec, moment.shown_frames
        first = len(moment.frames) - len(pictures)
        # Where a chunk takes longer to make than to play, its frames are spread over that time.
        period = max(1 / spec.fps, 0.95 * self._pace / spec.frames_per_chunk)
        latent = spec.frames_per_chunk // self.served.world.parts.config.sampler.chunk_width
        if self._asked_at is not None and self.plan.command in (None, moment.command):
            self.delay, self._asked_at = monotonic() - self._asked_at, None
        due = monotonic()
        for number, picture in enumerate(pictures):
            frame = first + number
            self.outbox.show(PictureHeader(moment.index, frame), picture)
            self.picture = picture
            due += period
            while True:
                if self.past.current is not moment or self._jobs or self.futures is not None:
                    return
                late = self._asked_at is not None and self._ahead_is_new
                if late and (frame + 1) % latent == 0:
                    return  # cut short: the answer to what was said is there
                if not self._going:
                    await self._nudged(None)
                    due = monotonic() + period
                    continue
                if (left := due - monotonic()) <= 0:
                    break
                await self._nudged(left)
                self._renew(moment)

    @property
    def _ahead_is_new(self) -> bool:
        ahead = self._ahead
        return ahead is not None and ahead.answer.done() and ahead.command == self.plan.command

    def _renew(self, moment: Shown) -> None:
        """Another command was given while a chunk plays: make the next one under it."""
        ahead = self._ahead
        if ahead is not None and ahead.command != self.plan.command:
            self._ask(moment, self.plan.command)

    async def _nudged(self, seconds: float | None) -> None:
        self._nudge.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._nudge.wait(), seconds)

    async def _imagine(self, futures: Strips) -> None:
        if not futures.complete:
            steps = [
                Step(state, command)
                for state, command in zip(futures.states, futures.commands, strict=True)
            ]
            commands = futures.commands
            mades = await asyncio.gather(*(self.served.make(self, step) for step in steps))
            if self.futures is not futures or futures.commands != commands:
                return
            frames = strips(np.stack([made.frames for made in mades]))
            form, quality = self.config.picture, self.config.quality
            pictures = await asyncio.to_thread(encode, frames, form, quality)
            if self.futures is not futures or futures.commands != commands:
                return
            futures.take(mades)
            futures.strips.append(pictures)
            self.tell_futures()
            await self._play_strip(futures, len(futures.strips) - 1)
            return
        for chunk in range(len(futures.strips)):
            await self._play_strip(futures, chunk)
            if self.futures is not futures or not futures.complete:
                return
        await self._nudged(LOOP_PAUSE)

    async def _play_strip(self, futures: Strips, chunk: int) -> None:
        base, count = futures.base.index, len(futures.commands)
        for frame, picture in enumerate(futures.strips[chunk]):
            header = PictureHeader(base + chunk + 1, frame, count, strip=True)
            self.outbox.show(header, picture)
            await asyncio.sleep(1 / self.served.spec.fps)
            if self.futures is not futures or not futures.strips or self._jobs:
                return

    async def _keep(self, futures: Strips, row: int) -> None:
        moments = [await self._moment(chunk[row]) for chunk in futures.chunks]
        self._go_on_from_here()
        self._write(events.Fork(len(futures.commands)))
        for chunk in futures.chunks:
            self._write(step_event([made.state.prompts[0] for made in chunk], "now"))
        self._write(events.Keep(row))
        for moment in moments:
            self.past.append(moment)
            self.journey.add(moment)
            self.tell_chunk(moment, len(futures.commands))
        self.plan.clear()
        self.tell_futures()
        self.tell()
        self.show_still(moments[-1])

    async def _moment(self, made: Made, seconds: float = 0.0) -> Shown:
        form, quality = self.config.picture, self.config.quality
        pictures = await asyncio.to_thread(encode, made.frames, form, quality)
        return Moment(tuple(pictures), made.state, made.skip, seconds)

    def _do(self, job: Job) -> None:
        self._drop_ahead()
        self.futures = None
        self._jobs.append(job)
        self.nudge()

    def _go_on_from_here(self) -> None:
        """What lay after the moment that is seen is about to be lost."""
        if not self.past.at_end and self.past.current is not None:
            self._write(events.Rewind(self.past.current.index))

    def _write(self, event: events.Event) -> None:
        if self._writer is not None:
            self._writer.write(event)

    def _end_session(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._session = self._writer = None
