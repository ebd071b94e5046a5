"""The thread that owns the world: jobs go in one at a time, answers come out.

pygame is never touched here, and the world nowhere else.
"""

from __future__ import annotations

import threading
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from magi_world.demos.window import jobs
from magi_world.demos.window.engine import Engine


class Cancelled(Exception):
    """Raised inside a job that is no longer wanted, at its next denoising step."""


class JobRunner(Protocol):
    """What the player needs of a worker; tests bring one without a thread."""

    @property
    def job(self) -> jobs.Job | None:
        """The job being done, or whose answer has not been taken yet."""

    @property
    def progress(self) -> tuple[int, int]:
        """(denoising steps done, in all) of that job; (0, 0) before the first one."""

    def submit(self, job: jobs.Job) -> None:
        """Start a job; only when there is none."""

    def poll(self) -> jobs.Answer | None:
        """The answer, once there is one."""

    def cancel(self) -> None:
        """Drop the current job; its answer will not be seen."""

    def close(self) -> None:
        """Stop as soon as the current denoising step ends."""


@dataclass(eq=False)
class _Ticket:
    """A job under way; written by the worker's thread, read by the other."""

    job: jobs.Job
    progress: tuple[int, int] = (0, 0)
    cancelled: bool = False


class Worker:
    """Runs jobs of an engine in a thread of its own. See `JobRunner`."""

    def __init__(self, engine: Engine) -> None:
        """The thread starts with the first job."""
        self._engine = engine
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="world")
        self._ticket: _Ticket | None = None
        self._answer: Future[jobs.Answer | None] | None = None
        self._closed = threading.Event()

    @property
    def job(self) -> jobs.Job | None:
        """See `JobRunner`."""
        return None if self._ticket is None else self._ticket.job

    @property
    def progress(self) -> tuple[int, int]:
        """See `JobRunner`."""
        return (0, 0) if self._ticket is None else self._ticket.progress

    def submit(self, job: jobs.Job) -> None:
        """See `JobRunner`. A cancelled job may still be ending; this one waits behind it."""
        if self._ticket is not None:
            raise RuntimeError("the worker has a job; poll it until it answers, or cancel it")
        self._ticket = ticket = _Ticket(job)
        self._answer = self._pool.submit(self._run, ticket)

    def poll(self) -> jobs.Answer | None:
        """See `JobRunner`."""
        if self._answer is None or not self._answer.done():
            return None
        answer = self._answer.result()
        self._ticket = self._answer = None
        return answer

    def cancel(self) -> None:
        """See `JobRunner`."""
        if self._ticket is not None:
            self._ticket.cancelled = True
        self._ticket = self._answer = None

    def close(self) -> None:
        """See `JobRunner`."""
        self._closed.set()
        self.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, ticket: _Ticket) -> jobs.Answer | None:
        def progress(done: int, total: int) -> None:
            ticket.progress = (done, total)
            if ticket.cancelled or self._closed.is_set():
                raise Cancelled

        if ticket.cancelled or self._closed.is_set():
            return None
        try:
            return self._engine.run(ticket.job, progress)
        except Cancelled:
            return None
        except (ValueError, OSError) as error:
            return jobs.Failed(ticket.job, str(error))
        except Exception as error:
            # Not foreseen: the terminal gets the whole story, the window its last line.
            traceback.print_exc()
            return jobs.Failed(ticket.job, f"{type(error).__name__}: {error}")
