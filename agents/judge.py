"""Agents judged by episodes of fixed seeds, in the real simulator or in a dream of it; what came of
it in one JSON file, written whole after every episode: a killed run goes on; and as a table.

Shapes: T video frames, H, W pixels.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from tabulate import tabulate

from magi_world.agents.basic import Agent
from magi_world.agents.config import JudgeConfig
from magi_world.agents.jobs import served
from magi_world.agents.loading import load_agent, policy_folder
from magi_world.envs.env import MagiWorldEnv
from magi_world.envs.real import RealWorldEnv
from magi_world.io.files import only_one, write_text
from magi_world.io.media import VideoConfig, VideoWriter
from magi_world.io.records import field_of, read_json
from magi_world.training.settings import WorldTrainConfig

SCHEMA = 1  # of a file of results
_PLAIN = ("survived",)  # the spread of these is of no interest; their means are
JudgingEnv: TypeAlias = RealWorldEnv | MagiWorldEnv
AgentMaker = Callable[[int, JudgingEnv], Agent]
EnvMaker = Callable[[], JudgingEnv]
# Figures of a game's own: of each episode's events, how often each happened, -> name -> figure.
Scores = Callable[[Sequence[Mapping[str, float]]], Mapping[str, float]]


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


def figures(episodes: Sequence[Episode], scores: Scores | None = None) -> dict[str, Figure]:
    """Figures of: reward, simulator_return, what ``scores`` adds, chunks, survived, each event,
    seconds a decision and each cost a decision.

    Raises:
        ValueError: no episodes.
    """
    if not episodes:
        raise ValueError("episodes is empty; there is nothing to take a mean of")

    def of(values: Iterable[float]) -> Figure:
        return Figure.of(list(values))

    own = [e.simulator_return for e in episodes if e.simulator_return is not None]
    found = {"reward": of(e.reward for e in episodes)}
    if own:
        found["simulator_return"] = of(own)
    if scores is not None:
        together = scores([episode.events for episode in episodes])
        found |= {name: Figure(value, None, None) for name, value in together.items()}
    found["chunks"] = of(e.chunks for e in episodes)
    found["survived"] = of(e.survived for e in episodes)
    for name in episodes[0].events:
        found[name] = of(e.events[name] for e in episodes)
    found["seconds a decision"] = of(e.seconds / e.chunks for e in episodes)
    for name in episodes[0].cost:
        found[f"{name} a decision"] = of(e.cost[name] / e.chunks for e in episodes)
    return found


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
        yield from served(partial(_player, make_agent, make_env), seeds, min(processes, len(seeds)))
        return
    with closing(make_env()) as env:
        for seed in seeds:
            yield play_episode(make_agent, env, seed)


def _player(make_agent: AgentMaker, make_env: EnvMaker) -> Callable[[int], Episode]:
    """What a worker process does: one simulator, many episodes."""
    env = make_env()
    return lambda seed: play_episode(make_agent, env, seed)


@dataclass(frozen=True)
class Setting:
    """What makes episodes comparable.

    world: the configuration's name.    rules: hash of all in it that decides an episode.
    max_chunks: as in `magi_world.envs.real.RealWorldEnv`.    dream: fingerprint of the world in
    which agents play; "" is the simulator itself.
    """

    world: str
    rules: str
    max_chunks: int | None = None
    dream: str = ""

    @classmethod
    def of(
        cls, config: WorldTrainConfig, max_chunks: int | None = None, dream: str = ""
    ) -> Setting:
        record, heads = asdict(config.record), config.heads
        for name in ("chunks", "chunks_per_shard", "held_out_shards", "processes", "seed"):
            del record[name]
        rules = {
            "record": record,
            "reward": heads.reward if isinstance(heads.reward, str) else dict(heads.reward),
            "death": heads.death,
            "default_command": config.default_command,
        }
        text = json.dumps(rules, sort_keys=True, default=str)
        return cls(config.name, hashlib.sha256(text.encode()).hexdigest()[:16], max_chunks, dream)


@dataclass(frozen=True)
class _Entry:
    """What the file says of one agent; its figures are made anew."""

    digest: str
    episodes: tuple[Episode, ...]
    figures: dict[str, Any]


class Results:
    """Episodes of several agents in one setting.

    path: the file; None keeps nothing.    scores: what `figures` adds, in file and table.
    """

    def __init__(
        self, setting: Setting, path: str | Path | None = None, scores: Scores | None = None
    ) -> None:
        """Reads the file if there is one.

        Raises:
            ValueError: a file of another setting or schema, or none of ours.
        """
        self.setting, self.path = setting, None if path is None else Path(path)
        self.scores = scores
        self._episodes: dict[str, dict[int, Episode]] = {}
        self._digests: dict[str, str] = {}
        if self.path is not None and self.path.exists():
            self._read(self.path)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, no other process adds to the file.

        Raises:
            BlockingIOError: one does.
        """
        if self.path is None:
            yield
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with only_one(self.path.with_name(f".{self.path.name}.lock"), str(self.path)):
            if self.path.exists():
                self._read(self.path)  # another one may have added to it before
            yield

    @property
    def agents(self) -> tuple[str, ...]:
        return tuple(self._episodes)

    def episodes(self, agent: str) -> list[Episode]:
        """Of one agent, in the order of their seeds."""
        found = self._episodes.get(agent, {})
        return [found[seed] for seed in sorted(found)]

    def open(self, agent: str, digest: str = "") -> list[Episode]:
        """Episodes of this agent that there are already.

        Args:
            digest: of what the agent is made from; see `agent_digest`.

        Raises:
            ValueError: those that there are were played by another agent of this name.
        """
        before = self._digests.setdefault(agent, digest)
        if before != digest:
            raise ValueError(
                f"{self.path} holds episodes of another {agent!r} (its files have changed since); "
                "write to another file"
            )
        self._episodes.setdefault(agent, {})
        return self.episodes(agent)

    def add(self, agent: str, episode: Episode) -> None:
        self._episodes[agent][episode.seed] = episode
        if self.path is not None:
            write_text(self.path, json.dumps(self.record(), indent=1) + "\n")

    def record(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        agents = {
            name: {
                "digest": self._digests[name],
                "figures": {
                    key: asdict(figure)
                    for key, figure in figures(self.episodes(name), self.scores).items()
                },
                "episodes": [asdict(episode) for episode in self.episodes(name)],
            }
            for name, found in self._episodes.items()
            if found
        }
        return {"schema": SCHEMA, "setting": asdict(self.setting), "agents": agents}

    def rows(self) -> list[list[str]]:
        """`table_rows` of all agents."""
        return table_rows({name: self.episodes(name) for name in self.agents}, self.scores)

    def _read(self, path: Path) -> None:
        try:
            record = read_json(path)
            schema = field_of(record, "schema", int, str(path))
            if schema != SCHEMA:
                raise ValueError(f"{path} has schema {schema}; this reads {SCHEMA}")
            setting = field_of(record, "setting", Setting, str(path))
            for name, entry in field_of(record, "agents", dict[str, _Entry], str(path)).items():
                self._digests[name] = entry.digest
                self._episodes[name] = {episode.seed: episode for episode in entry.episodes}
        except ValueError as error:
            raise ValueError(f"{path} is no file of results: {error}") from error
        if setting != self.setting:
            raise ValueError(
                f"{path} holds results of {setting}, not of {self.setting}; write to another file"
            )


def agent_digest(name: str) -> str:
    """Hash of the files of a trained policy; "" for an agent that is not a folder."""
    folder = policy_folder(name)
    if folder is None:
        return ""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("policy.*")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def baseline_names(commands: Sequence[str], dream: bool = False) -> list[str]:
    """What every agent is to be compared with; the collection policy cannot play in a dream."""
    plain = ["random", *(f"constant:{command}" for command in commands)]
    return plain if dream else [*plain, "collect"]


def table_rows(
    agents: Mapping[str, Sequence[Episode]], scores: Scores | None = None
) -> list[list[str]]:
    """Head and one row an agent: episodes, then mean ± standard error of each figure, with the
    standard deviation of the reward. A figure that an agent lacks is left empty."""
    known = {name: figures(episodes, scores) for name, episodes in agents.items() if episodes}
    columns = list(dict.fromkeys(name for found in known.values() for name in found))
    head = ["agent", "episodes", "reward", "sd", *columns[1:]]
    rows = [head]
    for name, found in known.items():
        reward = found["reward"]
        spread = "" if reward.std is None else f"{reward.std:.2f}"
        cells = [_shown(column, found.get(column)) for column in columns[1:]]
        count = str(len(agents[name]))
        rows.append([name, count, _shown("reward", reward), spread, *cells])
    return rows


def as_table(rows: Sequence[Sequence[str]], form: str = "plain") -> str:
    """form: of tabulate, e.g. "pipe" for Markdown."""
    align = ("left", *["right"] * (len(rows[0]) - 1))
    return tabulate(
        rows[1:], rows[0], form, disable_numparse=True, colalign=align if rows[1:] else None
    )


def _shown(name: str, figure: Figure | None) -> str:
    if figure is None:
        return ""
    if name in _PLAIN:
        return f"{figure.mean:.0%}"
    mean = f"{figure.mean:.4f}" if abs(figure.mean) < 0.1 else f"{figure.mean:.2f}"
    if name.endswith("a decision") or figure.error is None:
        return mean
    return f"{figure.mean:.2f} ± {figure.error:.2f}"
