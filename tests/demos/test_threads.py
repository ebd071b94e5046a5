"""The number of threads that a world is quickest with."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from magi_world.demos.threads import choose_threads, quickest
from tests.tiny import tiny_world


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def clock(times: dict[int, list[float]]) -> Callable[[int], float]:
    """Each number takes the times in turn."""
    return lambda n: times[n].pop(0)


@pytest.mark.parametrize(
    ("one", "two", "chosen"),
    [
        ([1.0, 0.05, 0.06, 0.05], [1.0, 0.03, 0.03, 0.04], 2),
        ([1.0, 0.05, 0.06, 0.05], [0.1, 0.9, 0.8, 0.9], 1),
        # Hardly quicker: the core is worth more to the window.
        ([1.0, 0.05, 0.06, 0.05], [1.0, 0.048, 0.05, 0.05], 1),
        # A disturbance that hits one round decides nothing.
        ([0.1, 0.05, 0.05, 0.05], [0.1, 0.7, 0.03, 0.6], 2),
    ],
)
def test_more_threads_only_where_they_pay(one: list[float], two: list[float], chosen: int) -> None:
    assert quickest((1, 2), clock({1: one, 2: two})) == chosen


def test_a_machine_that_is_very_slow_is_not_measured_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter(range(0, 1000, 3))
    monkeypatch.setattr("magi_world.demos.threads.time.perf_counter", lambda: float(next(now)))
    assert quickest((1, 2), clock({1: [3.0], 2: [9.0]})) == 1


def test_the_world_is_stepped_with_what_was_chosen() -> None:
    assert choose_threads(tiny_world(), most=1) is None
    chosen = choose_threads(tiny_world(), most=2)
    assert chosen in (1, 2)
    assert torch.get_num_threads() == chosen
