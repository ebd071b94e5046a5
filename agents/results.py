"""Judged episodes in one JSON file, written whole after every episode: a killed run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from magi_world.agents.judging import Episode, figures
from magi_world.agents.loading import policy_folder
from magi_world.io.files import only_one, write_text
from magi_world.io.records import build, field, read_json
from magi_world.training.settings import WorldTrainConfig

SCHEMA = 1


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
        """The setting of a configuration; how it is trained does not matter."""
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

    path: the file; None keeps nothing.
    """

    def __init__(self, setting: Setting, path: str | Path | None = None) -> None:
        """Reads the file if there is one.

        Raises:
            ValueError: a file of another setting or schema, or none of ours.
        """
        self.setting, self.path = setting, None if path is None else Path(path)
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
        """Their names, in the order in which they came."""
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
        """Keep an episode of an agent that was opened."""
        self._episodes[agent][episode.seed] = episode
        if self.path is not None:
            write_text(self.path, json.dumps(self.record(), indent=1) + "\n")

    def record(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        agents = {
            name: {
                "digest": self._digests[name],
                "figures": {k: asdict(v) for k, v in figures(self.episodes(name)).items()},
                "episodes": [asdict(episode) for episode in self.episodes(name)],
            }
            for name, found in self._episodes.items()
            if found
        }
        return {"schema": SCHEMA, "setting": asdict(self.setting), "agents": agents}

    def _read(self, path: Path) -> None:
        try:
            record = read_json(path)
            schema = field(record, "schema", int, str(path))
            if schema != SCHEMA:
                raise ValueError(f"{path} has schema {schema}; this reads {SCHEMA}")
            setting = build(Setting, field(record, "setting", dict[str, Any], str(path)), "setting")
            for name, entry in field(record, "agents", dict[str, _Entry], str(path)).items():
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
    return plain if dream else [*plain, "collect", "gather"]
