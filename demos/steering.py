"""From keys that are held and words that were typed to the command for the next chunk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from magi_world.agents.basic import Agent
from magi_world.agents.loading import knows
from magi_world.language import CommandQueue, Step
from magi_world.world.spec import Command, WorldSpec

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
        return tuple("+".join(sorted(c)) for c, name in self._chords.items() if name == command)


class Steering:
    """What a person wants next: held keys first, then a tap that no chunk has seen, then words.

    words: what was said and is not done yet, and the command that stays in force.
    """

    def __init__(self, keymap: KeyMap, default: str | None) -> None:
        """``default`` is the command once all keys are let go; None stays with the last one."""
        self.keymap, self.default = keymap, default
        self.words = CommandQueue(rest=default)
        self._held: list[str] = []
        self._tapped: str | None = None
        # What the chunk that is being made has used up; it comes back if nobody sees that chunk.
        self._taken: tuple[str | None, CommandQueue] | None = None

    @property
    def command(self) -> str | None:
        """The command for the next chunk, as of now; None goes on with the one in force."""
        return self.keymap.command(self._held) or self._tapped or self.words.next()[0]

    @property
    def queue(self) -> tuple[Step, ...]:
        """What was said and waits."""
        return self.words.to_come

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
        lasting = None if self.default is not None else command
        self.say(lasting)
        self._tapped = command

    def release(self, key: str | None = None) -> None:
        """A key went up, or all of them."""
        self._held = [held for held in self._held if key is not None and held != key]

    def say(self, words: str | None) -> None:
        """Words stay in force until other words or a key; None takes them back."""
        self.words = self.words.clear() if words is None else self.words.told(words)
        self._tapped = self._taken = None

    def clear(self) -> None:
        """Nothing was ever said."""
        self.say(None)
        self.words = CommandQueue(rest=self.default)

    def enqueue(self, steps: Sequence[Step]) -> None:
        """Several things one after the other; the last without a number stays in force."""
        self.say(None)
        self.words = replace(self.words, steps=tuple(steps), said=tuple(steps))

    def state(self, command: str | None) -> CommandQueue:
        """What "again", "back" and "keep going" refer to; ``command`` is the one in force."""
        return replace(self.words, steps=self.queue, command=command, left=0)

    def edit(self, place: int, steps: Sequence[Step]) -> None:
        """Put other steps in the place of one that waits; none at all drops it.
        Raises ValueError: nothing waits there.
        """
        rest = self.words.drop(place).steps
        self.words = replace(self.words, steps=(*rest[:place], *steps, *rest[place:]), left=0)
        self._taken = None

    def take(self) -> str | None:
        """The command for a chunk that is being asked for now; a tap is used up by it."""
        command = self.command
        self._taken = self._tapped, self.words
        if not self.from_keys:
            self._go_on()
        self._tapped = None
        return command

    def made(self, command: str | None) -> None:
        """A chunk was made under ``command``, without `take`."""
        if not self.from_keys:
            self._go_on()
        elif command == self._tapped:
            self._tapped = None

    def settle(self) -> None:
        """The chunk that was asked for is shown."""
        self._taken = None

    def untake(self) -> None:
        """Nobody will see the chunk that was asked for."""
        if self._taken is not None:
            self._tapped, self.words = self._taken
        self._taken = None

    def _go_on(self) -> None:
        words = self.words.next()[1]
        # What has no end stays in force; what came after it could never have its turn.
        self.words = replace(words, steps=()) if words.left is None else words


def _same(chords: dict[frozenset[str], str], one: frozenset[str], other: frozenset[str]) -> bool:
    return one in chords and chords[one] == chords.get(other)


def _chord(keys: str) -> frozenset[str]:
    """ "up+left" -> {up, left}; the plus key itself is written "+" alone."""
    return frozenset(part.strip().lower() for part in keys.split("+") if part.strip()) or frozenset(
        {keys}
    )


HUMAN, RANDOM = "human", "random"


class Controllers:
    """The human first, then whoever else there is, in order."""

    def __init__(self, agents: Mapping[str, Agent]) -> None:
        """``agents``: name -> agent; the human is always there.
        Raises ValueError: an agent is called "human".
        """
        if HUMAN in agents:
            raise ValueError(f"agents has the name {HUMAN!r}; it belongs to the person")
        self._own, self._agents = dict(agents), dict(agents)
        self.name = HUMAN

    @property
    def names(self) -> tuple[str, ...]:
        """All who can be in charge, in the order in which they follow each other."""
        return (HUMAN, *self._agents)

    @property
    def agent(self) -> Agent | None:
        """The agent in charge; None for the human."""
        return self._agents.get(self.name)

    def give_to(self, name: str) -> None:
        """This one takes over. Raises ValueError: there is no such one."""
        if name not in self.names:
            raise ValueError(f"controller is {name!r}; it must be one of {', '.join(self.names)}")
        self.name = name

    @property
    def following(self) -> str:
        """Who would take over next; the person themselves where nobody else is there."""
        names = self.names
        return names[(names.index(self.name) + 1) % len(names)]

    def offer(self, agents: Mapping[str, Agent], spec: WorldSpec) -> list[str]:
        """These come along with the world that is open now; those of the one before go.

        Whoever says what this world does not know has nothing to do in it.

        Returns:
            Names of those that were brought along and have nothing to do here.
        """
        fitting = {n: a for n, a in self._own.items() if knows(a, spec)}
        own = {n: a for n, a in fitting.items() if n != RANDOM}
        # Chance comes last: whoever knows what they do is the better company.
        chance = {n: a for n, a in fitting.items() if n == RANDOM and spec.commands}
        self._agents = {**own, **{n: a for n, a in agents.items() if n not in own}, **chance}
        if self.name not in self.names:
            self.name = HUMAN
        return [name for name in self._own if name not in fitting]
