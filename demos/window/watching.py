"""Who wants to know what is played: the session file, the recorder. All methods do nothing here."""

from __future__ import annotations

from magi_world.demos.window import jobs
from magi_world.demos.window.moment import Moment
from magi_world.language import Reading


class Watcher:
    """Told what became part of the story, in order: each chunk when it is first shown."""

    def opened(self, answer: jobs.Opened) -> None:
        """Another world is open; `begun` follows."""

    def begun(self, moment: Moment, start: jobs.Start) -> None:
        """The world begins."""

    def played(self, answer: jobs.Stepped) -> None:
        """A chunk is now being shown."""

    def rewound(self, moment: Moment) -> None:
        """Play goes on from this earlier moment."""

    def saved(self, slot: int, chunk: int | None) -> None:
        """A moment goes into a slot: the newest one, or that of an earlier chunk of the ring."""

    def unsaved(self, slot: int) -> None:
        """It could not be written; what is in the slot is not known."""

    def loaded(self, answer: jobs.Loaded) -> None:
        """Play goes on from a file."""

    def kept(self, answer: jobs.Kept) -> None:
        """One of several futures was made real."""

    def said(self, reading: Reading) -> None:
        """The person typed something."""

    def note(self, text: str) -> None:
        """A remark, e.g. who took over."""

    def close(self) -> None:
        """The end."""
