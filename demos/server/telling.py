"""What one page looks at and is told about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from magi_world.demos.server.batching import Made, Served
from magi_world.demos.server.pictures import Outbox, PictureHeader, Slots
from magi_world.demos.steering import Steering
from magi_world.demos.timeline import Futures, Moment, Timeline, first_look
from magi_world.language import Reading, understood
from magi_world.world.snapshot import Snapshot
from magi_world.world.spec import WorldSpec

if TYPE_CHECKING:
    from magi_world.demos.server.hub import Hub

Shown = Moment[tuple[bytes, ...]]  # its frames are files, as the page gets them


AT_MOST = 16  # chunks that futures are imagined ahead


class Strips(Futures[tuple[bytes, ...], list[Made]]):
    """Futures that a page looks at.    strips: of each chunk, pictures of all futures abreast."""

    def __init__(self, base: Shown, commands: Sequence[str], spec: WorldSpec) -> None:
        super().__init__(base, commands, first_look(spec, AT_MOST), AT_MOST)
        self.strips: list[list[bytes]] = []

    @property
    def states(self) -> list[Snapshot]:
        """From where each future goes on."""
        if not self.chunks:
            return [self.base.snapshot] * len(self.commands)
        return [made.state for made in self.chunks[-1]]

    def say(self, row: int, command: str) -> None:
        super().say(row, command)
        self.strips = []


class Told:
    """The state of a play, and the messages and pictures by which its page follows it.

    paused, single: whether it stands still, or only plays one chunk more.
    delay: seconds from a command to the first picture under it.    picture: the newest one.
    """

    outbox: Outbox
    served: Served
    plan: Steering
    past: Timeline[tuple[bytes, ...]]
    slots: Slots
    futures: Strips | None
    paused: bool
    single: bool
    delay: float | None
    picture: bytes | None

    @property
    def _chips(self) -> list[str]:
        """The steps to come, as they are shown."""
        return [
            step.command if step.chunks is None else f"{step.command} ×{step.chunks}"
            for step in self.plan.queue
        ]

    def show_still(self, moment: Shown) -> None:
        frame = len(moment.frames) - 1
        self.outbox.show(PictureHeader(moment.index, frame, still=True), moment.frames[-1])
        self.picture = moment.frames[-1]

    def welcome(self, hub: Hub, back: bool) -> None:
        """All that the page needs to draw itself. ``back``: the visitor was here before."""
        limits = hub.config.limits
        self.outbox.say(
            "welcome",
            world=self.served.describe(),
            worlds=list(hub.worlds),
            limits={"text": limits.text, "idle": limits.idle, "visitors": limits.visitors},
            video=hub.video,
            sessions=hub.config.sessions,
            back=back,
        )
        self.tell()
        self.tell_futures()
        if self.past.current is not None:
            self.show_still(self.past.current)

    def tell_reading(self, reading: Reading) -> None:
        told: dict[str, Any] = understood(reading, self.plan.words)
        self.outbox.say(
            "understood", text=reading.text, answer=reading.answer, obeyed=reading.obeyed, **told
        )

    def tell(self) -> None:
        current = self.past.current
        self.outbox.say(
            "state",
            paused=self.paused and not self.single,
            cursor=None if current is None else current.index,
            command=None if current is None else current.command,
            indices=[m.index for m in self.past.moments],
            chips=self._chips,
            slots=self.slots.filled,
        )

    def tell_chunk(self, moment: Shown, together: int) -> None:
        figures = self.served.batcher.figures
        self.outbox.say(
            "chunk",
            index=moment.index,
            command=moment.command,
            chips=self._chips,
            indices=[m.index for m in self.past.moments],
            seed=moment.seed,
            seconds=round(moment.seconds, 4),
            together=together,
            delay=None if self.delay is None else round(self.delay, 4),
            dropped=self.outbox.dropped,
            waiting=figures.waiting,
        )

    def tell_futures(self) -> None:
        futures = self.futures
        if futures is None:
            self.outbox.say("futures", commands=[], chunks=0, wanted=0)
            return
        self.outbox.say(
            "futures",
            commands=futures.commands,
            base=futures.base.index,
            chunks=len(futures.chunks),
            wanted=futures.wanted,
        )
