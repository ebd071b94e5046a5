"""Who plays while a recording is made, and how a command is held: what comes with the package.

Your own policy is a class of three methods; name it as ``policy: module:Class``, with
``policy_options`` as further arguments of its constructor:

    class Mine:
        def __init__(self, env, commands, rng):  # the environment, the commands' names, numpy's rng
            ...
        def reset(self):                         # an episode begins
            ...
        def command(self) -> str:                # what is held during the next chunk
            ...

It may look inside the simulator (``env.unwrapped``), and may have a fourth method,
``see(observation)``, which is told what every step and reset returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class StickyRandom:
    """Random commands that are held for a while: the policy of a world that names none.

    stay: chance that a command is held for another chunk. weights: command -> how often it is
        drawn, relative to the others' 1.
    Each episode has a favourite of its own, drawn three times as often as its weight says, so that
    long ways in one direction occur too.
    """

    def __init__(
        self,
        env: Any,
        commands: Sequence[str],
        rng: np.random.Generator,
        stay: float = 0.45,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """Raises:
        ValueError: a share that cannot be, or a weight for no command.
        """
        weights = dict(weights or {})
        if unknown := sorted(set(weights) - set(commands)):
            raise ValueError(f"policy_options.weights names {unknown}; commands are {commands}")
        if not 0 <= stay < 1:
            raise ValueError(f"policy_options.stay is {stay}; it must be from 0 to below 1")
        share = np.array([float(weights.get(c, 1.0)) for c in commands])
        if share.min() < 0 or share.sum() <= 0:
            raise ValueError(f"policy_options.weights are {weights}; they must not be negative")
        self.commands, self.rng, self.stay = list(commands), rng, stay
        self.usual = share / share.sum()
        self.share, self.held = self.usual, self.commands[0]

    def reset(self) -> None:
        """An episode begins: another favourite, another command."""
        liked = self.usual.copy()
        liked[self.rng.integers(len(liked))] *= 3
        self.share = liked / liked.sum()
        self.held = self._draw()

    def command(self) -> str:
        """The next command."""
        if self.rng.random() > self.stay:
            self.held = self._draw()
        return self.held

    def _draw(self) -> str:
        return str(self.rng.choice(self.commands, p=self.share))


class Once:
    """A controller: its action ``times`` times, and another one in the rest of the chunk.

    For games that move a tile a step, where holding "turn left" for a whole chunk would spin:
    ``{controller: "magi_world.training.policies:Once", options: {action: 0, then: 6, chunk: 4}}``.

    action, then: of the environment. chunk: steps of a chunk, after which the action comes again.
    at: step of the chunk, from 0, at which the action begins: with 1 a chunk shows the picture
    before it, too, so that what happened can be seen in the chunk itself.
    """

    def __init__(
        self, env: Any, action: Any, then: Any, chunk: int, times: int = 1, at: int = 1
    ) -> None:
        """Raises:
        ValueError: counts that cannot be.
        """
        if not (times >= 1 and at >= 0 and at + times <= chunk):
            raise ValueError(
                f"Once: at is {at} and times is {times}; both must lie in a chunk of {chunk} steps"
            )
        self.at = at
        self.first, self.then, self.chunk, self.times = action, then, chunk, times
        self.step = 0

    def begin(self) -> None:
        """The command is held from now on."""
        self.step = 0

    def action(self) -> Any:
        """The next step's."""
        place, self.step = self.step % self.chunk, self.step + 1
        return self.first if self.at <= place < self.at + self.times else self.then
