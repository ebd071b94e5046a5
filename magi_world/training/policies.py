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
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from magi_world.simulator import (
    ChunkSimulator,
    RecordConfig,
    as_action,
    load_object,
)


class Policy(Protocol):
    """Chooses the command of the next chunk; told when an episode starts."""

    def reset(self) -> None:
        """An episode begins."""

    def command(self) -> str:
        """What is held during the next chunk."""


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
        place, self.step = self.step % self.chunk, self.step + 1
        return self.first if self.at <= place < self.at + self.times else self.then


class NearestCommand:
    """Which command an action means: the one whose own action lies nearest."""

    def __init__(self, space: Any, actions: Mapping[str, Any]) -> None:
        """Raises:
        ValueError: an action of the table is not in the space, or none is a plain one.
        """
        self.space = space
        plain = {
            row: as_action(space, action)
            for row, action in enumerate(actions.values())
            if not (isinstance(action, Mapping) and "controller" in action)
        }
        if not plain:
            raise ValueError("record.actions has only controllers; name some plain actions")
        self.rows = np.array(list(plain))
        table = np.stack([self._flat(action) for action in plain.values()])
        # Every axis counts by how far the commands use it.
        self.scale = np.maximum(np.ptp(table, axis=0), 1e-6)
        self.table = table / self.scale

    def row(self, actions: Sequence[Any]) -> int:
        """The row of the command for the mean of some actions."""
        mean = np.mean([self._flat(a) for a in actions], axis=0) / self.scale
        return int(self.rows[np.square(self.table - mean).sum(1).argmin()])

    def _flat(self, action: Any) -> np.ndarray:
        from gymnasium.spaces import flatten

        return np.asarray(flatten(self.space, action), np.float64)


class TrainedAgent:
    """A policy that asks an agent of Stable-Baselines3 at the start of every chunk.

    file: what the agent's ``save`` wrote. algorithm: its class. random: share of chunks with a
    random command instead, because a recording must contain what the agent would never do. The
    agent must take the environment's observations as they are.
    """

    def __init__(
        self,
        env: Any,
        commands: Sequence[str],
        rng: np.random.Generator,
        file: str,
        actions: Mapping[str, Any],
        algorithm: str = "PPO",
        random: float = 0.25,
    ) -> None:
        """Raises:
        ImportError: Stable-Baselines3 is not installed.
        ValueError: no such algorithm or file, or an agent for other actions.
        """
        import stable_baselines3

        kind = getattr(stable_baselines3, algorithm, None)
        if kind is None:
            raise ValueError(
                f"policy_options.algorithm is {algorithm!r}; Stable-Baselines3 has A2C, DDPG, DQN, "
                "PPO, SAC and TD3"
            )
        if not Path(file).exists():
            raise ValueError(f"record.from: there is no file {file!r}")
        self.agent = kind.load(file, device="cpu")
        if self.agent.action_space != env.action_space:
            raise ValueError(
                f"the agent in {file} acts in {self.agent.action_space}, the environment in "
                f"{env.action_space}"
            )
        self.commands, self.rng, self.random = list(commands), rng, random
        self.nearest = NearestCommand(env.action_space, actions)
        self.seen: Any = None

    def reset(self) -> None:
        """An episode begins."""

    def see(self, observation: Any) -> None:
        self.seen = observation

    def command(self) -> str:
        if self.rng.random() < self.random:
            return str(self.rng.choice(self.commands))
        action, _ = self.agent.predict(self.seen, deterministic=False)
        return self.commands[self.nearest.row([action])]


def make_policy(
    config: RecordConfig, simulator: ChunkSimulator, rng: np.random.Generator
) -> Policy:
    """Who plays, made for this simulator; one with a method ``see`` is told every observation.

    Raises:
        ValueError: there is no such class, or it does not take policy_options.
    """
    path, options = config.policy, dict(config.policy_options)
    if config.source.startswith("sb3:"):
        path = "magi_world.training.policies:TrainedAgent"
        options |= {"file": config.source.removeprefix("sb3:"), "actions": config.actions}
    try:
        policy: Policy = load_object(path)(simulator.env, simulator.commands, rng, **options)
    except TypeError as error:
        raise ValueError(f"policy {path!r} cannot be made with {options}: {error}") from error
    simulator.watch = getattr(policy, "see", None)
    return policy
