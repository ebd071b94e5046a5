"""The thread that owns the world: answers, errors, giving up, ending."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from magi_world.demos.window import jobs
from magi_world.demos.window.jobs import Moment
from magi_world.demos.window.worker import Engine, Worker
from magi_world.world.world import World
from tests.tiny import tiny_world


def answer(worker: Worker, limit: float = 90.0) -> jobs.Answer:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if (given := worker.poll()) is not None:
            return given
        time.sleep(0.002)
    raise AssertionError("no answer")


@pytest.fixture
def worker() -> Worker:
    made = Worker(Engine(lambda name: tiny_world()))
    yield made
    made.close()


def opened(worker: Worker) -> Moment:
    worker.submit(jobs.Open("tiny"))
    given = answer(worker)
    assert isinstance(given, jobs.Opened)
    return given.moment


def slowly(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, list[str]]:
    """Let every denoising step wait for an event; and the names of the threads that stepped."""
    go, threads = threading.Event(), []
    step = World.step

    def slow(
        self: World,
        command: str | None = None,
        steer: str = "now",
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> object:
        def wait(done: int, total: int) -> None:
            threads.append(threading.current_thread().name)
            progress(done, total)
            go.wait(90)

        return step(self, command, steer, wait)

    monkeypatch.setattr(World, "step", slow)
    return go, threads


def test_a_chunk_is_made_in_the_worker_s_thread_with_progress(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = opened(worker)
    go, threads = slowly(monkeypatch)
    worker.submit(jobs.Step(base, "turn left"))
    while worker.progress == (0, 0):
        time.sleep(0.002)
    assert worker.progress == (1, 4)
    assert worker.poll() is None
    go.set()
    given = answer(worker)
    assert isinstance(given, jobs.Done)
    assert given.moment.command == "turn left"
    assert worker.job is None
    assert set(threads) == {"world_0"}


def test_a_cancelled_job_is_never_seen_and_the_world_goes_on_from_any_moment(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = opened(worker)
    go, _ = slowly(monkeypatch)
    worker.submit(jobs.Step(base, "turn left"))
    while worker.progress == (0, 0):
        time.sleep(0.002)
    worker.cancel()
    worker.submit(jobs.Step(base, "turn right"))
    go.set()
    given = answer(worker)
    assert isinstance(given, jobs.Done)
    world = tiny_world()
    world.reset(0)
    assert (given.moment.frames == world.step("turn right").frames[0]).all()


def test_errors_come_back_as_answers(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    base = opened(worker)
    worker.submit(jobs.Step(base, " "))
    given = answer(worker)
    assert isinstance(given, jobs.Failed)
    assert "it must say something" in given.error

    def broken(*args: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(World, "step", broken)
    worker.submit(jobs.Step(base, "turn left"))
    given = answer(worker)
    assert isinstance(given, jobs.Failed)
    assert given.error == "RuntimeError: out of memory"
    assert "Traceback" in capfd.readouterr().err
    monkeypatch.undo()
    worker.submit(jobs.Step(base, "turn left"))
    assert isinstance(answer(worker), jobs.Done)


def test_one_job_at_a_time(worker: Worker) -> None:
    worker.submit(jobs.Open("tiny"))
    with pytest.raises(RuntimeError, match="has a job"):
        worker.submit(jobs.Open("tiny"))


def test_closing_in_the_middle_of_a_chunk_waits_for_one_denoising_step_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker(Engine(lambda name: tiny_world()))
    base = opened(worker)
    go, threads = slowly(monkeypatch)
    worker.submit(jobs.Step(base, "turn left"))
    while worker.progress == (0, 0):
        time.sleep(0.002)
    threading.Timer(0.05, go.set).start()
    worker.close()
    assert len(threads) <= 2
    assert not any(t.name.startswith("world") and t.is_alive() for t in threading.enumerate())
