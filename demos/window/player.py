"""The model of playing: time, commands, the chunk ahead. No pygame, no thread, no clock of its own.

`Player.tick(now)` is called often; it takes answers from the worker, moves the picture on, and asks
for the next chunk as late as is safe, so that a command given meanwhile still shapes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from magi_world.agents.basic import Agent
from magi_world.demos.steering import HUMAN, Controllers, KeyMap, Steering
from magi_world.demos.window import jobs
from magi_world.demos.window.jobs import Futures
from magi_world.demos.window.playback import CommandDelay, Flashes, Pace, Playback, ShownRate
from magi_world.demos.window.slots import Slots
from magi_world.demos.window.watchers import Audience, Notices, Watcher
from magi_world.demos.window.worker import Worker
from magi_world.language import Reading, Step
from magi_world.session.events import Note, Rewind, Said, Save


@dataclass(frozen=True)
class PlayerConfig:
    """ring_chunks, ring_bytes: how far rewinding reaches, whichever is less.
    steer: see `World.step`.    slots: folder of the saved moments.
    rest: seconds after which the picture rests when nobody says anything: a world that is left to
    itself drifts away from what it was. 0 = never.
    """

    ring_chunks: int = 240
    ring_bytes: int = 1 << 30
    steer: Literal["now", "queue"] = "now"
    slots: Path = Path("recordings/slots")
    rest: float = 5.0


class Player:
    """What is played and how it goes on. The window reads its attributes and calls its methods."""

    def __init__(
        self,
        runner: Worker,
        agents: Mapping[str, Agent] | None = None,
        watchers: Sequence[Watcher] = (),
        config: PlayerConfig | None = None,
    ) -> None:
        """Nothing is open yet: call `open`."""
        self.config = config or PlayerConfig()
        self.runner, self.notices = runner, Notices()
        self.watchers = Audience(watchers, self.notices)
        self.controllers = Controllers(agents or {})
        self.steering = Steering(KeyMap(()), None)
        self.playback = Playback(Pace(1.0, 1), 2)
        self.opened: jobs.Opened | None = None
        self.start = jobs.Start()
        self.futures: Futures | None = None
        self.slots: Slots | None = None
        # What the agent in charge says next.
        self.plan: jobs.Asked | None = None
        # What was typed last, and what it was understood as; keys and agents take it away.
        self.reading: Reading | None = None
        self.shown, self.delay, self.flashes = ShownRate(), CommandDelay(), Flashes()
        self.now, self.failures = 0.0, 0
        self._queue: list[jobs.Job] = []
        self._ticked: float | None = None

    @property
    def moment(self) -> jobs.Moment | None:
        return self.playback.moment

    @property
    def command(self) -> str:
        """The command for the next chunk as of now; of an agent, what it says next or said last."""
        if self.controllers.agent is None:
            given = self.steering.command
        else:
            given = None if self.planned is None else self.planned.command
        return given or ("" if self.moment is None else self.moment.command)

    @property
    def planned(self) -> jobs.Asked | None:
        """What the agent in charge says for the chunk after the one that is shown, once it has."""
        plan, name = self.plan, self.controllers.name
        fits = plan is not None and plan.job.base is self.moment and plan.job.by == name
        return plan if fits else None

    @property
    def lands(self) -> int | None:
        """Index of the first chunk that a command given now can condition."""
        if self.moment is None or self.opened is None:
            return None
        queued = self.opened.window_size - 1 if self.config.steer == "queue" else 0
        # What nobody has seen is made anew if there is time (`_reconsider`).
        under_way = self.playback.ahead is not None or isinstance(self.runner.job, jobs.Step)
        return self.moment.index + 1 + queued + (under_way and not self.playback.early)

    @property
    def work(self) -> str:
        """What the worker is doing, for people; empty while it only makes the next chunk."""
        return jobs.doing(self.runner.job or (self._queue[0] if self._queue else None))

    def tick(self, now: float) -> None:
        """The time is ``now``, in seconds."""
        seconds = 0.0 if self._ticked is None else max(0.0, now - self._ticked)
        self.now = self._ticked = now
        self.notices.tick(now)
        if (answer := self.runner.poll()) is not None:
            self._take(answer)
        if self.futures is not None:
            self.futures.advance(seconds)
        else:
            rewound = None if self.playback.timeline.at_end else self.moment
            if (stepped := self.playback.advance(seconds)) is not None:
                if rewound is not None:
                    self.watchers.happened(Rewind(rewound.index))
                self.watchers.happened(stepped.events[0], stepped.moments)
                self.delay.shown(stepped.moment.command, now)
                self.steering.settle()
                for event in () if stepped.moment.score is None else stepped.moment.score.fresh:
                    self.flashes.add(event, now)
                if self.delay.waiting and self.controllers.agent is None:
                    self.playback.hurry()
            if self.moment is not None:
                self.shown.shown((self.moment, self.playback.frame_number), now)
            self._rest(seconds)
        if self.runner.job is None and (job := self._next_job()) is not None:
            self.runner.submit(job)

    def open(self, job: jobs.Open) -> None:
        self._first(job)

    def begin(self, start: jobs.Start) -> None:
        self._first(jobs.Begin(start))

    def load(self, path: Path, slot: int | None = None) -> None:
        self._first(jobs.Load(path, slot))

    def save(self, slot: int) -> None:
        if self.moment is not None and self.slots is not None:
            self.slots.remember(slot, self.playback.timeline.past)
            self._queue.append(jobs.Save(self.moment, slot, self.slots.path(slot)))

    def read(self, text: str) -> Reading | None:
        """What a text means to this world now; None while none is open."""
        if self.opened is None:
            return None
        now = self.steering.state(None if self.moment is None else self.moment.command)
        return self.opened.world.interpreter.read(text, now)

    def say(self, text: str) -> None:
        """The person says something, and takes over; in a fork it is for the selected future.

        What the world does not understand changes nothing, and is answered.
        """
        self.reading = reading = self.read(text)
        if reading is None:
            busy = f"{self.work}; say it again in a moment" if self.work else ""
            self.notices.error(busy or "no world is open; M picks one")
            return
        if self.futures is not None and reading.command is not None:
            self.drop_work()
            self.futures.say(self.futures.selected, reading.command)
            return
        self.watchers.happened(Said.of(reading))
        if not reading.obeyed:
            self.notices.refuse(reading.answer)
        else:
            self.enqueue(reading.steps)

    def press(self, key: str) -> bool:
        """A key went down; whether it means something to this world."""
        if key not in self.steering.keymap.keys:
            return False
        if self.futures is None and (command := self.steering.press(key)) is not None:
            self.reading = None
            self.hand_to(HUMAN)
            self._commanded(command)
        return True

    def tap(self, command: str) -> None:
        """A command that was clicked: as a key that is pressed and let go."""
        if self.futures is not None:
            self.say(command)
            return
        self.reading = None
        self.hand_to(HUMAN)
        self.steering.tap(command)
        self._commanded(command)

    def release(self, key: str) -> None:
        """A key went up; what it asked for ends with the next latent frame that can end it."""
        before = self.steering.command
        self.steering.release(key)
        after, moment = self.steering.command, self.moment
        # A tap that no chunk has shown yet still gets its chunk.
        if moment and before != after and moment.command == before and after and not self.futures:
            self._commanded(after)

    def enqueue(self, steps: Sequence[Step]) -> None:
        self.hand_to(HUMAN)
        self.steering.enqueue(steps)
        if steps:
            self._commanded(steps[0].command)

    def edit_queue(self, place: int, steps: Sequence[Step]) -> None:
        first = self.steering.command
        self.steering.edit(place, steps)
        if (command := self.steering.command) != first and command is not None:
            self._commanded(command)

    def hand_over(self) -> None:
        if len(self.controllers.names) == 1:
            self.notices.info("nobody else knows the commands of this world")
        self.hand_to(self.controllers.following)

    def hand_to(self, name: str) -> None:
        if name != self.controllers.name:
            self.reading = self.reading if name == HUMAN else None
            self.playback.wake()
            self.controllers.give_to(name)
            self.steering.say(None)
            self.delay.forget()
            self._reconsider()
            other = f"{name} steers; any arrow is yours again"
            self.notices.info("you steer again" if name == HUMAN else other)
            self.watchers.happened(Note(f"{name} takes over"))

    def pause(self, on: bool | None = None) -> None:
        """Stop or go on; None changes over."""
        self.playback.pause(not self.playback.paused if on is None else on)
        self.delay.forget()

    def step_once(self) -> None:
        self.playback.step_once()
        self.delay.forget()

    def rewind(self, chunks: int) -> None:
        """Stop and go back so many chunks in the ring (or forward, if negative)."""
        if self.futures is None and self.moment is not None:
            self.drop_work()
            self.delay.forget()
            timeline = self.playback.timeline
            if self.playback.rewind(chunks):
                if not timeline.at_end:
                    self.notices.info("Space goes on from here; what came after is then dropped")
            elif chunks:
                oldest = "this is the oldest chunk that is kept"
                self.notices.info(oldest if chunks > 0 else "this is the newest chunk")

    def seek(self, position: int) -> None:
        """`rewind` to a place in the timeline, 0 the oldest."""
        if self.moment is not None:
            self.rewind(self.playback.timeline.position - position)

    def what_if(self) -> None:
        """Stop and imagine several futures from the moment that is shown; again: drop them."""
        self.drop_work()
        if self.futures is not None or self.moment is None or self.opened is None:
            self.futures = None
            return
        self.pause(True)
        self.playback.ahead = None
        self.futures = Futures(self.moment, self.opened.spec)

    def keep(self, row: int) -> None:
        if self.futures is not None:
            try:
                self._first(self.futures.keep(row))
            except ValueError as error:
                self.notices.error(str(error))

    def close(self) -> None:
        self.runner.close()
        self.watchers.close()

    def drop_work(self) -> None:
        """What is being made is no longer wanted: another moment, command or world is."""
        self.steering.untake()
        if isinstance(self.runner.job, jobs.Ask | jobs.Step | jobs.Imagine):
            self.runner.cancel()

    def _first(self, job: jobs.Job) -> None:
        self.drop_work()
        self._queue.append(job)

    def _next_job(self) -> jobs.Job | None:
        if self._queue:
            return self._queue.pop(0)
        if self.futures is not None:
            return self.futures.job()
        if self.moment is None:
            return None
        agent, name = self.controllers.agent, self.controllers.name
        if agent is not None and self.planned is None:
            # As soon as there is something to look at, so that the person sees what comes.
            wanted = self.playback.running and self.playback.ahead is None
            return jobs.Ask(self.moment, agent, name) if wanted else None
        if not self.playback.due:
            return None
        command = self.steering.take() if self.planned is None else self.planned.command
        return jobs.Step(self.moment, command, self.config.steer)

    def _rest(self, seconds: float) -> None:
        """Stop when nobody has said anything for a while and the world's default is in force."""
        moment, default = self.moment, self.steering.default
        quiet = moment is not None and moment.command == self.command == default
        if not quiet or self.controllers.agent is not None:
            self.playback.wake()
        elif self.playback.idle(seconds, self.config.rest):
            self.drop_work()
            self.notices.info("the world rests until somebody says something")

    def _commanded(self, command: str) -> None:
        self.playback.wake()
        if self.playback.running and self.moment and command != self.moment.command:
            self.delay.given(command, self.now)
        else:
            self.delay.forget()
        if self._reconsider():
            self.playback.hurry()

    def _reconsider(self) -> bool:
        """Give up a chunk that nobody has seen, if there is time to make it as was said now.

        Returns:
            Whether the next chunk will be as was said now.
        """
        untouched = self.playback.ahead is None and not isinstance(self.runner.job, jobs.Step)
        if not untouched and not self.playback.early:
            return False
        self.playback.ahead = None
        # A tap or a queue that was given just now must not be overwritten by what was taken.
        self.steering.settle()
        self.drop_work()
        return True

    # What the worker's answers do

    def _take(self, answer: jobs.Answer) -> None:
        match answer:
            case jobs.Failed():
                self._failed(answer)
            case jobs.Asked():
                self.plan = answer
            case jobs.Imagined():
                if self.futures is not None:
                    self.futures.take(answer)
            case jobs.Opened():
                self._opened(answer)
            case jobs.Done():
                self._done(answer)

    def _done(self, done: jobs.Done) -> None:
        match done.job:
            case jobs.Begin(start):
                # A fresh seed is known only now; beginning again means this one.
                self.start = start
                self._fresh([done.moment])
            case jobs.Step():
                # It is told when it is first shown.
                self.playback.pace.made(done.moment.seconds)
                self.playback.ahead, self.failures = done, 0
                return
            case jobs.Save(moment, slot):
                newest = moment is self.moment and self.playback.timeline.at_end
                self.watchers.happened(Save(str(slot), None if newest else moment.index))
                self.notices.info(f"saved in slot {slot}: L, then {slot} brings it back")
            case jobs.Load():
                self._loaded(done, done.job)
            case jobs.Keep():
                self._kept(done, done.job)
        for event in done.events:
            self.watchers.happened(event, done.moments if event is done.events[-1] else ())

    def _opened(self, opened: jobs.Opened) -> None:
        spec, config = opened.spec, self.config
        self.opened = opened
        if opened.threads is not None:
            # A setting of each thread; what is written about this one is what the worker has.
            torch.set_num_threads(opened.threads)
        self.steering = Steering(KeyMap(spec.commands), spec.default_command)
        for name in self.controllers.offer(opened.agents, spec):
            self.notices.info(f"{name} does not know the commands of {spec.name}")
        bytes_kept = opened.world.cache_bytes + opened.moment.frames.nbytes
        ring = max(2, min(config.ring_chunks, config.ring_bytes // max(1, bytes_kept)))
        pace = Pace(spec.fps, spec.frames_per_chunk)
        self.playback = Playback(pace, ring, opened.frames_per_latent)
        self.slots = Slots(config.slots, spec)
        self.watchers.opened(opened)
        self._done(opened.begun)

    def _fresh(self, moments: Sequence[jobs.Moment]) -> None:
        self.futures, self.plan, self.reading, self.failures = None, None, None, 0
        self.steering.say(None)
        self.playback.wake()
        self.delay.forget()
        self.playback.begin(moments)

    def _loaded(self, done: jobs.Done, job: jobs.Load) -> None:
        """Play goes on from there, under the command of that moment, with what came before it."""
        assert self.slots is not None, "a world is open"
        past = self.slots.past(job.slot, done.moment)
        self._fresh(past)
        if past[-1].command != self.steering.default:
            self.steering.say(past[-1].command)
        back = "; [ goes back before it" if len(past) > 1 else ""
        self.notices.info(f"{job.name} is loaded{back}")

    def _kept(self, done: jobs.Done, job: jobs.Keep) -> None:
        if not self.playback.timeline.at_end:
            self.watchers.happened(Rewind(job.base.index))
        self.futures = None
        self.playback.extend(done.moments)
        command = job.commands[job.row]
        if self.controllers.agent is None:
            self.steering.say(command)
        self.pause(False)
        self.notices.info(f"this future is now the world: {command}")

    def _failed(self, failed: jobs.Failed) -> None:
        self.notices.error(failed.error)
        match failed.job:
            case jobs.Step() | jobs.Ask():
                self.failures += 1
                if self.controllers.name != HUMAN:
                    self.notices.error(f"{self.controllers.name} failed; you steer again")
                self.hand_to(HUMAN)
                self.steering.say(None)
                # Once more with the command in force; if that fails too, wait for the person.
                if self.failures > 1:
                    self.pause(True)
            case jobs.Imagine():
                self.futures = None
