"""From keys that are held and words that were typed to the command for the next chunk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from magi_world.spec import Command

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

    def keys_of(self, command: str) -> tuple[str, ...]:
        """The keys that give a command, for people to read."""
        return tuple("+".join(sorted(c)) for c, name in self._chords.items() if name == command)


class Steering:
    """What a person wants next: held keys first, then a tap that no chunk has seen, then words."""

    def __init__(self, keymap: KeyMap, default: str | None) -> None:
        """``default`` is the command once all keys are let go; None stays with the last one."""
        self.keymap, self.default = keymap, default
        self._held: list[str] = []
        self._tapped: str | None = None
        self._words: str | None = None

    @property
    def command(self) -> str | None:
        """The command for the next chunk, as of now; None goes on with the one in force."""
        return self.keymap.command(self._held) or self._tapped or self._words or self.default

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
            self._tapped = command
            self._words = None if self.default is not None else command
        return command

    def release(self, key: str) -> None:
        """A key went up."""
        if key in self._held:
            self._held.remove(key)

    def release_all(self) -> None:
        """The keyboard went elsewhere."""
        self._held.clear()

    def say(self, words: str | None) -> None:
        """Words stay in force until other words or a key; None takes them back."""
        self._words, self._tapped = words, None

    def take(self) -> str | None:
        """The command for a chunk that is being asked for now; a tap is used up by it."""
        command = self.command
        self._tapped = None
        return command


def _same(chords: dict[frozenset[str], str], one: frozenset[str], other: frozenset[str]) -> bool:
    return one in chords and chords[one] == chords.get(other)


def _chord(keys: str) -> frozenset[str]:
    """ "up+left" -> {up, left}; the plus key itself is written "+" alone."""
    return frozenset(part.strip().lower() for part in keys.split("+") if part.strip()) or frozenset(
        {keys}
    )
