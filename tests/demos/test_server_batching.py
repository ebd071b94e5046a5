"""One batch for everybody: turns, errors, and that no world is seen by another."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from magi_world.demos.server.batching import Batcher, Begin, Made, Step
from tests.alike import assert_alike
from tests.tiny import tiny_world


@pytest.fixture
def batcher() -> Any:
    made = Batcher(tiny_world(3))
    yield made
    made.close()


def answers(asked: list[Future[Made]]) -> list[Made]:
    return [future.result(30) for future in asked]


def test_many_visitors_get_what_each_would_get_alone(batcher: Batcher) -> None:
    seeds, says = range(5), ["turn left", "turn right", "walk forward", "stand still", "turn left"]
    states = answers([batcher.ask(i, Begin(seed)) for i, seed in enumerate(seeds)])
    for _ in range(3):
        asked = [batcher.ask(i, Step(s.state, says[i])) for i, s in enumerate(states)]
        states = answers(asked)
    for seed, say, made in zip(seeds, says, states, strict=True):
        alone = tiny_world()
        alone.reset(seed)
        for _ in range(3):
            chunk = alone.step(say)
        assert_alike(made.frames, chunk.frames[0])
        assert_alike(made.latents, chunk.latents[0])
        assert (made.index, made.command) == (3, say)
    assert max(made.together for made in states) > 1


def test_a_state_can_be_continued_again_and_gives_the_same(batcher: Batcher) -> None:
    begun = batcher.ask("a", Begin(7)).result(30)
    first = batcher.ask("a", Step(begun.state, "turn left")).result(30)
    batcher.ask("b", Begin(8)).result(30)
    again = batcher.ask("a", Step(begun.state, "turn left")).result(30)
    assert np.array_equal(first.frames, again.frames)
    other = batcher.ask("a", Step(begun.state, "turn right")).result(30)
    assert not np.array_equal(first.frames, other.frames)


def test_what_is_wrong_fails_alone(batcher: Batcher) -> None:
    begun = batcher.ask("a", Begin(1)).result(30)
    asked = [batcher.ask(i, Step(begun.state, say)) for i, say in enumerate(["turn left", "", "x"])]
    with pytest.raises(ValueError, match="it must say something"):
        asked[1].result(30)
    assert asked[0].result(30).index == asked[2].result(30).index == 1
    with pytest.raises(ValueError, match="start is 99"):
        batcher.ask("a", Begin(1, start=99)).result(30)


def test_owners_take_turns(batcher: Batcher) -> None:
    begun = batcher.ask("a", Begin(1)).result(30)
    order: list[str] = []
    with batcher._news:  # nothing is picked while we hold this
        greedy = [batcher.ask("greedy", Step(begun.state, "turn left")) for _ in range(9)]
        modest = batcher.ask("modest", Step(begun.state, "turn left"))
        for name, future in [*(("greedy", f) for f in greedy), ("modest", modest)]:
            future.add_done_callback(lambda _, name=name: order.append(name))
    answers([*greedy, modest])
    assert "modest" in order[:3]


def test_cancelled_requests_cost_nothing(batcher: Batcher) -> None:
    begun = batcher.ask("a", Begin(1)).result(30)
    before = batcher.figures.chunks
    with batcher._news:
        gone = batcher.ask("a", Step(begun.state, "turn left"))
        gone.cancel()
        kept = batcher.ask("a", Step(begun.state, "turn left"))
    kept.result(30)
    assert batcher.figures.chunks == before + 1


def test_closed(batcher: Batcher) -> None:
    batcher.close()
    with pytest.raises(RuntimeError, match="closing"):
        batcher.ask("a", Begin(1))
