"""Who is in charge: the person at the keyboard, a script, or an agent; one key hands over."""

from __future__ import annotations

from collections.abc import Mapping

from magi_world.agents.protocol import Agent

HUMAN = "human"


class Controllers:
    """The human first, then whoever else there is, in order."""

    def __init__(self, agents: Mapping[str, Agent]) -> None:
        """``agents``: name -> agent; the human is always there.

        Raises:
            ValueError: an agent is called "human".
        """
        if HUMAN in agents:
            raise ValueError(f"agents has the name {HUMAN!r}; it belongs to the person")
        self._agents = dict(agents)
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
        names = self.names
        self.name = names[(names.index(self.name) + 1) % len(names)]
        return self.name

    def give_to(self, name: str) -> None:
        """This one takes over.

        Raises:
            ValueError: there is no such one.
        """
        if name not in self.names:
            raise ValueError(f"controller is {name!r}; it must be one of {', '.join(self.names)}")
        self.name = name

    def add(self, name: str, agent: Agent) -> None:
        """Add an agent, or put another in its place."""
        Controllers({name: agent})
        self._agents[name] = agent
