"""The policy that played while the training data was recorded, as an agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from magi_world.agents.protocol import checked_command
from magi_world.envs.real import RealWorldEnv
from magi_world.simulator import load_object


class CollectingAgent:
    """``record.policy`` of the simulator's configuration.

    It may look at the simulator's inside, so it is no rival for agents that see pictures: it says
    how much there is to get. It plays in a `RealWorldEnv` only.
    """

    def __init__(self, env: object, seed: int = 0, gather: float | None = None) -> None:
        """Args:
            env: where it plays.
            seed: of its choices.
            gather: share of the chunks in which it heads for what is worth something; None plays
                as for the recording.

        Raises:
            ValueError: no simulator, ``gather`` outside 0 .. 1, or given for a policy without it.
        """
        if not isinstance(env, RealWorldEnv):
            raise ValueError(
                "the collection policy looks at the simulator's inside; it plays in a RealWorldEnv "
                "only (magi-world eval-agent)"
            )
        name = env.config.record.policy
        rng = np.random.default_rng([seed, 1])
        self.policy: Any = load_object(name)(env.simulator.env, list(env.commands), rng)
        self.policy.reset()
        if gather is None:
            return
        if not 0 <= gather <= 1:
            raise ValueError(f"gather is {gather}; it must be 0 .. 1")
        if not hasattr(self.policy, "gather"):
            raise ValueError(f"record.policy is {name}; it has no attribute 'gather' to set")
        self.policy.gather = gather

    def act(self, observation: np.ndarray, info: Mapping[str, Any]) -> str:
        """What the policy says now; see `magi_world.agents.protocol.Agent`."""
        return checked_command(self.policy.command(), "the collection policy")
