"""The number of threads that a world is quickest with."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from magi_world.demos import bench as threads_module
from magi_world.demos.bench import choose_threads, quickest
from tests.tiny import tiny_world


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def clock(times: dict[int, list[float]]) -> Callable[[int, float], float]:
    """Each number takes the times in turn."""
    return lambda n, limit: times[n].pop(0)


@pytest.mark.parametrize(
    ("one", "two", "chosen"),
    [
        ([1.0, 0.05, 0.06], [0.08, 0.03, 0.03], 2),
        ([1.0, 0.05, 0.06], [0.09, 0.09, 0.08], 1),
        # Hardly quicker: the core is worth more to the window.
        ([1.0, 0.05, 0.06], [0.06, 0.048, 0.05], 1),
        # A disturbance that hits one round decides nothing.
        ([0.1, 0.05, 0.05], [0.09, 0.07, 0.03], 2),
        # Given up after the first.
        ([0.1, 0.05, 0.05], [9.0], 1),
    ],
)
def test_more_threads_only_where_they_pay(one: list[float], two: list[float], chosen: int) -> None:
    assert quickest((1, 2), clock({1: one, 2: two})) == chosen


def test_a_machine_that_is_very_slow_is_not_measured_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter(range(0, 1000, 3))
    monkeypatch.setattr("magi_world.demos.bench.time.perf_counter", lambda: float(next(now)))
    assert quickest((1, 2), clock({1: [3.0], 2: [9.0]})) == 1


def test_a_chunk_that_would_take_far_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    world, steps = tiny_world(), 0
    world.reset(0)
    step = world.step

    def counted(progress: Callable[[int, int], None]) -> object:
        def watched(done: int, total: int) -> None:
            nonlocal steps
            steps = done
            progress(done, total)

        return step(progress=watched)

    monkeypatch.setattr(world, "step", counted)
    assert threads_module._seconds(world, 1, limit=1e-9) == float("inf")
    assert steps == 1


def test_on_a_busy_machine_one_thread_is_taken_unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magi_world.demos.bench.load_of_others", lambda: 99.0)
    monkeypatch.setattr(threads_module, "_seconds", lambda *given: pytest.fail("it was measured"))
    assert choose_threads(tiny_world(), most=2) == 1


def test_the_world_is_stepped_with_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magi_world.demos.bench.load_of_others", lambda: 0.0)
    assert choose_threads(tiny_world(), most=1) is None
    chosen = choose_threads(tiny_world(), most=2)
    assert chosen in (1, 2)
    assert torch.get_num_threads() == chosen
