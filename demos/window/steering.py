"""From keys that are held and words that were typed to the command for the next chunk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from magi_world.language import CommandQueue, Step
from magi_world.world.spec import Command

# Letters that stand for arrows in games, unless a world gives a letter a meaning of its own.
ARROWS = {"w": "up", "a": "left", "s": "down", "d": "right"}


class KeyMap:
    """Which keys mean which command, from `Command.keys`; "up+left" is a chord."""

    def __init__(self, commands: Iterable[Command]) -> None:
        """Where two commands claim the same keys, the first one has them."""
        chords: dict[frozenset[str], str] = {}
        for command in commands:
            for keys in command.keys:
                chords.setdefault(_chord(keys), command.name)
        used = frozenset().union(*chords) if chords else frozenset()
        self._aliases = {
            letter: arrow
            for letter, arrow in ARROWS.items()
            if arrow in used
            and (letter not in used or _same(chords, frozenset({letter}), frozenset({arrow})))
        }
        self.keys = used | set(self._aliases)
        # With w for up and a for left, the chord w+a is also that of the arrows.
        self._chords: dict[frozenset[str], str] = {}
        for chord, name in chords.items():
            self._chords.setdefault(frozenset(self._aliases.get(k, k) for k in chord), name)

    def command(self, held: Sequence[str]) -> str | None:
        """The command of the held keys, in the order they were pressed; None if they mean none.

        The largest chord wins; among equals the one that was completed last.
        """
        order = {self._aliases.get(key, key): place for place, key in enumerate(held)}
        matching = [chord for chord in self._chords if chord and chord <= order.keys()]
        if not matching:
            return None
        best = max(matching, key=lambda chord: (len(chord), max(order[key] for key in chord)))
        return self._chords[best]

    def lasting(self, command: str) -> bool:
        """Whether a command is not steered by holding a key: it has none, or a number only.

        Those are goals and changes of scene; they stay in force until something else is said.
        """
        return all(key.isdigit() for key in self.keys_of(command))

    def keys_of(self, command: str) -> tuple[str, ...]:
        """The keys that give a command, for people to read."""
        return tuple("+".join(sorted(c)) for c, name in self._chords.items() if name == command)


class Steering:
    """What a person wants next: held keys first, then a tap that no chunk has seen, then what was
    queued, then words.
    """

    def __init__(self, keymap: KeyMap, default: str | None) -> None:
        """``default`` is the command once all keys are let go; None stays with the last one."""
        self.keymap, self.default = keymap, default
        self._held: list[str] = []
        self._tapped: str | None = None
        self._words: str | None = None
        self.queue: tuple[Step, ...] = ()
        self._said: tuple[Step, ...] = ()
        # What the chunk that is being made has used up; it comes back if nobody sees that chunk.
        self._taken: tuple[str | None, str | None, tuple[Step, ...]] | None = None

    @property
    def command(self) -> str | None:
        """The command for the next chunk, as of now; None goes on with the one in force."""
        queued = self.queue[0].command if self.queue else None
        keys = self.keymap.command(self._held) or self._tapped
        return keys or queued or self._words or self.default

    @property
    def from_keys(self) -> bool:
        """Whether a key is held or was tapped."""
        return bool(self.keymap.command(self._held) or self._tapped)

    def press(self, key: str) -> str | None:
        """A key went down; the command that it gives, if it gives one."""
        if key not in self.keymap.keys or key in self._held:
            return None
        self._held.append(key)
        command = self.keymap.command(self._held)
        if command is not None:
            self.tap(command)
        return command

    def tap(self, command: str) -> None:
        """This shapes one chunk, as a key that is pressed and let go; the queue is dropped."""
        self._tapped, self.queue, self._taken = command, (), None
        self._words = None if self.default is not None else command

    def release(self, key: str) -> None:
        """A key went up."""
        if key in self._held:
            self._held.remove(key)

    def release_all(self) -> None:
        """The keyboard went elsewhere."""
        self._held.clear()

    def say(self, words: str | None) -> None:
        """Words stay in force until other words or a key; None takes them back."""
        self._words, self._tapped, self.queue, self._taken = words, None, (), None

    def enqueue(self, steps: Sequence[Step]) -> None:
        """Several things one after the other; the last without a number stays in force."""
        self.say(None)
        self.queue = self._said = tuple(steps)

    def state(self, command: str | None) -> CommandQueue:
        """What "again", "back" and "keep going" refer to; ``command`` is the one in force."""
        return CommandQueue(self.queue, command, 0, self._said, self.default)

    def edit(self, place: int, steps: Sequence[Step]) -> None:
        """Put other steps in the place of one that waits; none at all drops it."""
        self.queue = (*self.queue[:place], *steps, *self.queue[place + 1 :])
        self._taken = None

    def take(self) -> str | None:
        """The command for a chunk that is being asked for now; a tap is used up by it."""
        command = self.command
        self._taken = self._tapped, self._words, self.queue
        if not self.from_keys and self.queue:
            first, rest = self.queue[0], self.queue[1:]
            if first.chunks is None:
                # It stays in force, as words do; what came after it could never have its turn.
                self._words, self.queue = first.command, ()
            elif first.chunks > 1:
                self.queue = (replace(first, chunks=first.chunks - 1), *rest)
            else:
                self.queue = rest
        self._tapped = None
        return command

    def settle(self) -> None:
        """The chunk that was asked for is shown."""
        self._taken = None

    def untake(self) -> None:
        """Nobody will see the chunk that was asked for."""
        if self._taken is not None:
            self._tapped, self._words, self.queue = self._taken
        self._taken = None


def _same(chords: dict[frozenset[str], str], one: frozenset[str], other: frozenset[str]) -> bool:
    return one in chords and chords[one] == chords.get(other)


def _chord(keys: str) -> frozenset[str]:
    """ "up+left" -> {up, left}; the plus key itself is written "+" alone."""
    return frozenset(part.strip().lower() for part in keys.split("+") if part.strip()) or frozenset(
        {keys}
    )
