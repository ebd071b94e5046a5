"""What a visitor wants next: a key that is held, else the queue of what was said."""

from __future__ import annotations

from magi_world.demos.window.steering import KeyMap
from magi_world.language import CommandQueue, Reading


class Plan:
    """Commands for the chunks to come. A key empties the queue."""

    def __init__(self, keymap: KeyMap, default: str | None) -> None:
        """``default`` is the command once all keys are let go; None stays with the last one."""
        self._keymap, self._default = keymap, default
        self._queue = CommandQueue(rest=default)
        self._held: list[str] = []
        self._tapped: str | None = None

    @property
    def queue(self) -> CommandQueue:
        """What was said and is not done yet."""
        return self._queue

    @property
    def command(self) -> str | None:
        """What the next chunk is made under; None goes on as before."""
        return self._keymap.command(self._held) or self._tapped or self._queue.next()[0]

    @property
    def chips(self) -> list[str]:
        """The steps to come, as they are shown."""
        return [
            step.command if step.chunks is None else f"{step.command} ×{step.chunks}"
            for step in self._queue.to_come
        ]

    def say(self, reading: Reading) -> None:
        """In place of everything else, where the sentence was understood."""
        if reading.obeyed:
            self._queue, self._tapped = self._queue.say(reading), None

    def drop(self, number: int) -> None:
        """Take a step out.

        Raises:
            ValueError: there is no such step.
        """
        self._queue = self._queue.drop(number)

    def clear(self) -> None:
        """Nothing is to come."""
        self._queue, self._tapped = CommandQueue(rest=self._default), None

    def press(self, key: str) -> str | None:
        """A key went down; the command that it gives, if it gives one."""
        if key not in self._keymap.keys or key in self._held:
            return None
        self._held.append(key)
        command = self._keymap.command(self._held)
        if command is not None:
            self.clear()
            self._tapped = command
            if self._default is None:
                self._queue = self._queue.told(command)
        return command

    def release(self, key: str | None = None) -> None:
        """A key went up, or all of them."""
        self._held = [held for held in self._held if key is not None and held != key]

    def made(self, command: str | None) -> None:
        """A chunk was made under ``command``."""
        if self._keymap.command(self._held) is not None or self._tapped is not None:
            self._tapped = None if command == self._tapped else self._tapped
        else:
            self._queue = self._queue.next()[1]
