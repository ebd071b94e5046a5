"""Who is in charge: the person at the keyboard, a script, or an agent; one key hands over."""

from __future__ import annotations

from collections.abc import Mapping

from magi_world.agents.basic import Agent
from magi_world.agents.loading import knows
from magi_world.world.spec import WorldSpec

HUMAN, RANDOM = "human", "random"


class Controllers:
    """The human first, then whoever else there is, in order."""

    def __init__(self, agents: Mapping[str, Agent]) -> None:
        """``agents``: name -> agent; the human is always there.

        Raises:
            ValueError: an agent is called "human".
        """
        if HUMAN in agents:
            raise ValueError(f"agents has the name {HUMAN!r}; it belongs to the person")
        self._own, self._agents = dict(agents), dict(agents)
        self.name = HUMAN

    @property
    def names(self) -> tuple[str, ...]:
        """All who can be in charge, in the order of `hand_over`."""
        return (HUMAN, *self._agents)

    @property
    def agent(self) -> Agent | None:
        """The agent in charge; None for the human."""
        return self._agents.get(self.name)

    def hand_over(self) -> str:
        """The next one takes over; who that is."""
        self.name = self.following
        return self.name

    def give_to(self, name: str) -> None:
        """This one takes over.

        Raises:
            ValueError: there is no such one.
        """
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

    def add(self, name: str, agent: Agent) -> None:
        """Add an agent, or put another in its place."""
        Controllers({name: agent})
        self._own[name] = self._agents[name] = agent
