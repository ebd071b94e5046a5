"""What a page is told about its visitor's play."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magi_world.demos.server.past import Moment
from magi_world.language import Reading, understood

if TYPE_CHECKING:
    from magi_world.demos.server.hub import Hub
    from magi_world.demos.server.visitor import Visitor


def welcome(visitor: Visitor, hub: Hub, back: bool) -> None:
    """All that the page needs to draw itself. ``back``: the visitor was here before."""
    limits = hub.config.limits
    visitor.outbox.say(
        "welcome",
        world=visitor.served.describe(),
        worlds=list(hub.worlds),
        limits={"text": limits.text, "idle": limits.idle, "visitors": limits.visitors},
        video=hub.video,
        sessions=hub.config.sessions,
        back=back,
    )
    tell(visitor)
    tell_futures(visitor)
    if visitor.past.current is not None:
        visitor.show_still(visitor.past.current)


def tell_reading(visitor: Visitor, reading: Reading) -> None:
    """What became of a sentence."""
    told: dict[str, Any] = understood(reading, visitor.plan.queue)
    visitor.outbox.say(
        "understood", text=reading.text, answer=reading.answer, obeyed=reading.obeyed, **told
    )


def tell(visitor: Visitor) -> None:
    """Where the play stands."""
    current = visitor.past.current
    visitor.outbox.say(
        "state",
        paused=visitor.paused and not visitor._single,
        cursor=None if current is None else current.index,
        command=None if current is None else current.command,
        indices=visitor.past.indices,
        chips=visitor.plan.chips,
        slots=visitor.slots.filled,
    )


def tell_chunk(visitor: Visitor, moment: Moment, together: int) -> None:
    """A chunk begins to be shown, or was passed."""
    figures = visitor.served.batcher.figures
    visitor.outbox.say(
        "chunk",
        index=moment.index,
        command=moment.command,
        chips=visitor.plan.chips,
        indices=visitor.past.indices,
        seed=moment.state.state.lanes[0].seed,
        seconds=round(moment.seconds, 4),
        together=together,
        delay=None if visitor.delay is None else round(visitor.delay, 4),
        dropped=visitor.outbox.dropped,
        waiting=figures.waiting,
    )


def tell_futures(visitor: Visitor) -> None:
    """What is being imagined."""
    futures = visitor.futures
    if futures is None:
        visitor.outbox.say("futures", commands=[], chunks=0, wanted=0)
        return
    visitor.outbox.say(
        "futures",
        commands=futures.commands,
        base=futures.base.index,
        chunks=len(futures.chunks),
        wanted=futures.wanted,
    )
