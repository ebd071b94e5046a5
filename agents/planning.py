"""An agent that tries every command in the world before it says one.

Shapes: A commands, k futures of each, n = A k worlds in one batch, T video frames, H, W pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import torch

from magi_world.agents.basic import Agent, info_field
from magi_world.envs.env import MagiWorldEnv
from magi_world.loading import load_world
from magi_world.world.chunk import Chunk
from magi_world.world.snapshot import Snapshot
from magi_world.world.world import World

Continuation = Literal["repeat", "random"]


@dataclass(frozen=True)
class PlanningConfig:
    """chunks: h, how far futures reach.    futures: k of each command, with other noise each.

    discount: what a reward is worth a chunk later.    penalty: times the standard deviation over
    the k futures, subtracted from their mean: what the world is unsure of counts less.
    continuation: commands after the first chunk, where no policy gives them: "repeat" the first, or
    "random" ones, the same for all first commands.
    history: chunks of real frames that the world is shown; None is as many as it remembers.
    """

    chunks: int = 3
    futures: int = 2
    discount: float = 0.95
    penalty: float = 0.0
    continuation: Continuation = "repeat"
    history: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("chunks", "futures", "history"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"PlanningConfig.{name} is {value}; it must be at least 1")
        if not 0 <= self.discount <= 1:
            raise ValueError(f"PlanningConfig.discount is {self.discount}; it must be 0 .. 1")
        if self.penalty < 0:
            raise ValueError(f"PlanningConfig.penalty is {self.penalty}; it must be 0 or more")
        if self.penalty and self.futures == 1:
            raise ValueError("PlanningConfig.penalty needs at least 2 futures: one has no spread")
        if self.continuation not in get_args(Continuation):
            raise ValueError(
                f"PlanningConfig.continuation is {self.continuation!r}; it must be one of "
                f"{get_args(Continuation)}"
            )


class PlanningAgent:
    """Says the command whose imagined futures are worth most.

    In a dream (`MagiWorldEnv`) it forks the world as it is, with other noise than the dream will
    have. Anywhere else, as in the real simulator, it has frames only: it shows a world of its own
    the newest ones before every decision.

    What it says depends on what it sees, the index of the chunk and its seed.

    cost: what was spent so far: chunks imagined, over all worlds of the batch.
    """

    def __init__(
        self,
        world: World,
        config: PlanningConfig | None = None,
        env: MagiWorldEnv | None = None,
        policy: Agent | None = None,
    ) -> None:
        """Args:
            world: lends its weights; it is not stepped.
            env: the dream in which the agent plays; None where it has only frames.
            policy: what futures go on with after their first chunk. It must decide by one
                observation and its info alone, because it is asked about all futures in turn.

        Raises:
            ValueError: the world has no heads to score futures with.
        """
        if world.parts.heads is None:
            raise ValueError(f"the world {world.spec.name!r} has no reward heads to plan with")
        self.config, self.env, self.policy = config or PlanningConfig(), env, policy
        self._source = world
        self._one = self._worlds(1)
        self._wide: World | None = None
        remembered = self._one.parts.config.sampler.history
        self._seen: deque[np.ndarray] = deque(maxlen=self.config.history or max(1, remembered))
        self.cost = {"imagined chunks": 0}

    def act(self, observation: np.ndarray, info: Mapping[str, Any]) -> str:
        """The best command; see `magi_world.agents.basic.Agent`.

        Raises:
            ValueError: ``info`` lacks ``chunk``; frames that the world cannot take.
        """
        turn = int(info_field(info, "chunk"))
        commands = tuple(info.get("commands") or self._source.spec.command_names)
        values = self.values(self._situation(observation, turn), commands, turn)
        return commands[int(values.argmax())]

    def values(self, situation: Snapshot, commands: Sequence[str], turn: int) -> np.ndarray:
        """What each command is worth (A,): mean over its futures, less the penalty.

        Args:
            situation: of one world, from which all futures start.
            turn: index of the chunk that was seen last; the noise depends on it.

        Raises:
            ValueError: a snapshot of several worlds, or of another world.
        """
        if situation.num_worlds != 1:
            raise ValueError(f"situation has {situation.num_worlds} worlds; it must have one")
        returns = self._returns(situation, commands, turn).reshape(len(commands), -1)
        if not self.config.penalty:
            return returns.mean(1)
        return returns.mean(1) - self.config.penalty * returns.std(1, ddof=1)

    def _returns(self, situation: Snapshot, commands: Sequence[str], turn: int) -> np.ndarray:
        """(n,) discounted predicted reward of every future; those of a command side by side."""
        futures = self.config.futures
        wide = self._batch(len(commands) * futures)
        starts = [situation.reseeded(self._noise(turn, future)) for future in range(futures)]
        for row in range(wide.num_worlds):
            wide.restore(starts[row % futures], [row], row=0)
        said = [command for command in commands for _ in range(futures)]
        total, alive = np.zeros(len(said)), np.ones(len(said))
        for depth in range(self.config.chunks):
            chunk = wide.step_latents(said)
            self.cost["imagined chunks"] += len(said)
            reward, end = _predicted(wide, chunk)
            total += alive * self.config.discount**depth * reward
            alive *= 1 - end
            if depth + 1 < self.config.chunks:
                said = self._continued(said, commands, wide, chunk, turn, depth + 1)
        return total

    def _continued(
        self,
        said: list[str],
        commands: Sequence[str],
        wide: World,
        chunk: Chunk,
        turn: int,
        depth: int,
    ) -> list[str]:
        """What is said next in every future."""
        if self.policy is not None:
            frames = wide.decode(chunk).frames
            fixed = {"chunk": turn + depth, "commands": tuple(commands), "seed": self.config.seed}
            return [
                self.policy.act(frames[row], {**fixed, "prompt": command})
                for row, command in enumerate(said)
            ]
        if self.config.continuation == "repeat":
            return said
        draws = np.random.default_rng([self.config.seed, turn, depth])
        picks = draws.integers(len(commands), size=self.config.futures)
        return [commands[picks[row % len(picks)]] for row in range(len(said))]

    def _situation(self, observation: np.ndarray, turn: int) -> Snapshot:
        if self.env is not None:
            return self.env.world.snapshot()
        if turn == 0:
            self._seen.clear()
        self._seen.append(np.asarray(observation))
        self._one.reset(seed=self.config.seed, video=np.concatenate(self._seen))
        return self._one.snapshot()

    def _noise(self, turn: int, future: int) -> int:
        """The seed of a future; those of the same number share it, whatever their command is."""
        return int(np.random.SeedSequence([self.config.seed, turn, future]).generate_state(1)[0])

    def _batch(self, count: int) -> World:
        if self._wide is None or self._wide.num_worlds != count:
            self._wide = self._worlds(count)
        return self._wide

    def _worlds(self, count: int) -> World:
        return self._source.another(count)


@torch.inference_mode()
def _predicted(world: World, chunk: Chunk) -> tuple[np.ndarray, np.ndarray]:
    """Reward and probability of the end, (n,) each."""
    assert world.parts.heads is not None, "checked at construction"
    said = world.parts.heads(chunk.seen)
    return said["reward"].double().cpu().numpy(), said["end"].double().cpu().numpy()


def load_planner(
    options: str, seed: int = 0, env: Any = None, load_policy: Callable[[str], Agent] | None = None
) -> PlanningAgent:
    """A planner from words such as "futures=4,chunks=2,world=NAME".

    Args:
        options: fields of `PlanningConfig`; ``world``, the name or folder of one; ``policy``, an
            agent's name, which futures go on with.
        env: where it plays. A `MagiWorldEnv` is forked, unless ``world`` is given; otherwise the
            world is ``world``, or the one that is named as the simulator's configuration.
        load_policy: the agent of a name.

    Raises:
        ValueError: an unknown option, a value that cannot be, or no world.
    """
    given = dict(_option(part) for part in options.split(",") if part.strip())
    name, policy = given.pop("world", None), given.pop("policy", None)
    kinds: dict[str, Any] = {
        f.name: type(f.default) if f.default is not None else int for f in fields(PlanningConfig)
    }
    if unknown := sorted(set(given) - set(kinds)):
        known = ", ".join([*kinds, "world", "policy"])
        raise ValueError(f"planner has options {unknown}; it may have {known}")
    values: dict[str, Any] = {"seed": seed}
    for option, text in given.items():
        try:
            values[option] = kinds[option](text)
        except ValueError:
            kind = kinds[option].__name__
            raise ValueError(f"planner: {option} is {text!r}; it must be of type {kind}") from None
    inner = getattr(env, "unwrapped", None)
    dream = inner if isinstance(inner, MagiWorldEnv) and name is None else None
    if dream is not None:
        world = dream.world
    else:
        name = name or getattr(getattr(env, "config", None), "name", None)
        if name is None:
            raise ValueError("planner does not know its world; say 'planner:world=NAME'")
        world = load_world(name)
    if policy is not None and load_policy is None:
        raise ValueError(f"planner has policy={policy}, but nobody to load it")
    follow = load_policy(policy) if policy is not None and load_policy is not None else None
    return PlanningAgent(world, PlanningConfig(**values), dream, follow)


def _option(part: str) -> tuple[str, str]:
    name, equals, value = part.partition("=")
    if not equals:
        raise ValueError(f"planner: {part!r} is no option; write name=value")
    return name.strip(), value.strip()
