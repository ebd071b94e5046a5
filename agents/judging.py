"""Agents judged by episodes of fixed seeds, in the real simulator or in a dream of it.

Shapes: T video frames, H, W pixels.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from magi_world.agents.loading import load_agent
from magi_world.agents.protocol import Agent
from magi_world.agents.workers import served
from magi_world.envs.env import MagiWorldEnv
from magi_world.envs.real import RealWorldEnv
from magi_world.io.media import VideoConfig, VideoWriter

JudgingEnv: TypeAlias = RealWorldEnv | MagiWorldEnv
AgentMaker = Callable[[int, JudgingEnv], Agent]
EnvMaker = Callable[[], JudgingEnv]


@dataclass(frozen=True)
class JudgeConfig:
    """episodes: how many, with seeds seed, seed + 1, ...    processes: that share the work.

    What an episode comes to depends on its seed alone, not on the number of processes.
    """

    episodes: int = 100
    seed: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("seed", 0), ("processes", 1)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"JudgeConfig.{name} is {value}; it must be at least {least}")

    @property
    def seeds(self) -> range:
        """Of the episodes."""
        return range(self.seed, self.seed + self.episodes)


@dataclass(frozen=True)
class Episode:
    """One episode.

    reward: the configuration's, summed; in a dream, what the heads predict.
    simulator_return: the simulator's own, summed, with that of chunk 0; None in a dream.
    events: how often each happened; in a dream, their predicted probabilities, summed.
    chunks: decisions taken.
    survived: it was cut short by a limit, not ended.    seconds: spent deciding.
    cost: what the agent says that it spent, e.g. a planner's imagined chunks.
    """

    seed: int
    reward: float
    simulator_return: float | None
    events: Mapping[str, float]
    chunks: int
    survived: bool
    seconds: float
    cost: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """Mean, standard deviation (of a sample) and standard error; None for a single episode."""

    mean: float
    std: float | None
    error: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        """The figure of some episodes' values."""
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        error = None if spread is None else spread / math.sqrt(len(values))
        return cls(float(np.mean(values)), spread, error)


@dataclass(frozen=True)
class NamedAgent:
    """Makes the agent that `load_agent` gives for a name, anew for each episode."""

    name: str

    def __call__(self, seed: int, env: JudgingEnv) -> Agent:
        """The agent for the episode of this seed."""
        return load_agent(self.name, seed, env)


def judge_agent(
    make_agent: AgentMaker,
    make_env: EnvMaker,
    config: JudgeConfig | None = None,
    known: Sequence[Episode] = (),
    done: Callable[[Episode], None] | None = None,
) -> list[Episode]:
    """Play the episodes; those in ``known`` are not played again.

    Args:
        make_agent: of (seed, env) gives the agent of an episode. With several processes it and
            ``make_env`` must be picklable: functions of a module, `functools.partial`, classes.
        done: called with each episode as soon as it is over, in any order.

    Returns:
        All episodes, in the order of their seeds.

    Raises:
        ValueError: an agent gave a command that the environment does not know.
    """
    config = config or JudgeConfig()
    over = {episode.seed: episode for episode in known if episode.seed in config.seeds}
    missing = [seed for seed in config.seeds if seed not in over]
    for episode in _played(make_agent, make_env, missing, config.processes):
        over[episode.seed] = episode
        if done is not None:
            done(episode)
    return [over[seed] for seed in config.seeds]


def play_episode(
    make_agent: AgentMaker,
    env: JudgingEnv,
    seed: int,
    watch: Callable[[np.ndarray], None] | None = None,
) -> Episode:
    """One episode; ``watch`` gets the frames (T, H, W, 3) of every chunk, the start included."""
    frames, info = env.reset(seed=seed)
    agent = make_agent(seed, env)
    fixed = {"commands": env.commands, "seed": seed}
    reward, seconds, events = 0.0, 0.0, Counter[str]()
    simulator: float | None = info.get("simulator_reward")
    over = cut = False
    while not (over or cut):
        if watch is not None:
            watch(frames)
        began = time.perf_counter()
        command = agent.act(frames, {**info, **fixed})
        seconds += time.perf_counter() - began
        frames, gained, over, cut, info = env.step(command)
        reward += gained
        simulator = None if simulator is None else simulator + info["simulator_reward"]
        events.update(info.get("events", {}))
    if watch is not None:
        watch(frames)
    cost: Mapping[str, float] = getattr(agent, "cost", {})
    return Episode(
        seed,
        reward,
        simulator,
        {name: events[name] for name in sorted(events) if name != "end"},
        int(info["chunk"]),
        not over,
        round(seconds, 4),
        dict(cost),
    )


def figures(episodes: Sequence[Episode]) -> dict[str, Figure]:
    """Figures of: reward, simulator_return, chunks, survived, each event, seconds a decision and
    each cost a decision.

    Raises:
        ValueError: no episodes.
    """
    if not episodes:
        raise ValueError("episodes is empty; there is nothing to take a mean of")

    def of(value: Callable[[Episode], float]) -> Figure:
        return Figure.of([value(episode) for episode in episodes])

    def event(name: str) -> Figure:
        return of(lambda e: e.events[name])

    def cost(name: str) -> Figure:
        return of(lambda e: e.cost[name] / e.chunks)

    own = [e.simulator_return for e in episodes if e.simulator_return is not None]
    return {
        "reward": of(lambda e: e.reward),
        **({"simulator_return": Figure.of(own)} if own else {}),
        "chunks": of(lambda e: e.chunks),
        "survived": of(lambda e: float(e.survived)),
        **{name: event(name) for name in episodes[0].events},
        "seconds a decision": of(lambda e: e.seconds / e.chunks),
        **{f"{name} a decision": cost(name) for name in episodes[0].cost},
    }


def median_episode(episodes: Sequence[Episode]) -> Episode:
    """The one in the middle by reward, then by the simulator's return, then by seed.

    Raises:
        ValueError: no episodes.
    """
    if not episodes:
        raise ValueError("episodes is empty; there is no median")
    ranked = sorted(episodes, key=lambda e: (e.reward, e.simulator_return or 0.0, e.seed))
    return ranked[(len(ranked) - 1) // 2]


def film_episode(make_agent: AgentMaker, env: JudgingEnv, seed: int, path: str | Path) -> Episode:
    """Play the episode of a seed once more, into an MP4."""
    if isinstance(env, RealWorldEnv):
        fps, size = float(env.config.fps), env.config.record.frame_size
    else:
        fps, size = env.world.spec.fps, env.world.spec.frame_size
    with VideoWriter(path, VideoConfig(fps, size)) as film:
        return play_episode(make_agent, env, seed, film.write)


def _played(
    make_agent: AgentMaker, make_env: EnvMaker, seeds: Sequence[int], processes: int
) -> Iterator[Episode]:
    if not seeds:
        return
    if processes > 1:
        yield from served(_Player(make_agent, make_env), seeds, min(processes, len(seeds)))
        return
    with closing(make_env()) as env:
        for seed in seeds:
            yield play_episode(make_agent, env, seed)


@dataclass(frozen=True)
class _Player:
    """What a worker process does: one simulator, many episodes."""

    make_agent: AgentMaker
    make_env: EnvMaker

    def __call__(self) -> Callable[[int], Any]:
        env = self.make_env()
        return lambda seed: play_episode(self.make_agent, env, seed)
