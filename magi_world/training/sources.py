"""Recordings that others made or play: Minari datasets, and agents of Stable-Baselines3.

A dataset holds an action for every step, a recording a command for every chunk of T steps: the
command whose action is nearest to the mean of the chunk's actions. With actions that change every
step that is a blurred label, so datasets of held actions teach a world's commands best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from magi_world.training.environment import as_action, as_picture, entry, open_env, shrink
from magi_world.training.record import (
    RecordConfig,
    SimulatedChunk,
    shard_path,
    shard_row,
    write_shard,
)


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
        """What the environment returned."""
        self.seen = observation

    def command(self) -> str:
        """What the agent would do now."""
        if self.rng.random() < self.random:
            return str(self.rng.choice(self.commands))
        action, _ = self.agent.predict(self.seen, deterministic=False)
        return self.commands[self.nearest.row([action])]


def record_dataset(config: RecordConfig, folder: Path, told: Callable[[int], object]) -> None:
    """Write the missing shards of ``config`` from its Minari dataset.

    Args:
        told: called with the number of chunks of every shard that was written.

    Raises:
        ImportError: Minari is not installed.
        ValueError: no such dataset, too few chunks in it, or pictures that it does not have.
    """
    rows: list[dict[str, Any]] = []
    shard = 0
    for episode, chunks in enumerate(dataset_episodes(config)):
        for chunk in chunks:
            rows.append(shard_row(chunk, episode))
            if len(rows) == config.chunks_per_shard:
                if not shard_path(folder, shard).exists():
                    told(write_shard(config, rows, shard_path(folder, shard)))
                rows, shard = [], shard + 1
                if shard == config.shards:
                    return
    have = shard * config.chunks_per_shard + len(rows)
    raise ValueError(
        f"record.chunks is {config.chunks}; {config.source} has only {have} chunks of "
        f"{config.frames_per_chunk} frames. Set chunks to at most {have}, and chunks_per_shard so "
        "that it divides it"
    )


def open_dataset(name: str) -> Any:
    """A Minari dataset that is on this machine.

    Raises:
        ImportError: Minari is not installed.
        ValueError: there is no such dataset.
    """
    try:
        import minari
    except ModuleNotFoundError as error:
        raise ImportError("datasets need Minari: pip install 'magi-world[minari]'") from error
    known = minari.list_local_datasets()
    if name not in known:
        raise ValueError(
            f"record.from names the dataset {name!r}, which is not on this machine; here are "
            f"{sorted(known) or 'none'} (minari download {name})"
        )
    return minari.load_dataset(name)


def dataset_episodes(config: RecordConfig) -> Iterator[list[SimulatedChunk]]:
    """The episodes of ``config``'s dataset, as chunks."""
    dataset = open_dataset(config.source.removeprefix("minari:"))
    shape = getattr(dataset.observation_space, "shape", None) or ()
    commands = list(config.actions)
    if len(shape) == 4:  # one that `export-recording` wrote: a step is a chunk
        for episode in dataset.iterate_episodes():
            yield _whole_chunks(episode, commands, config)
        return
    nearest = NearestCommand(dataset.action_space, config.actions)
    env = None if config.frame_key else open_env(config.env, config.env_options)
    for episode in dataset.iterate_episodes():
        seen = _entries(episode.observations, config.frame_key) if env is None else None
        pictures = seen if seen is not None else _replayed(env, dataset, episode, config)
        yield _cut(pictures, episode, nearest, config)


def _entries(observations: Any, key: str) -> Any:
    """The array of an entry over an episode; pictures of shape (n + 1, H, W, C)."""
    return entry(observations, key)


def _replayed(env: Any, dataset: Any, episode: Any, config: RecordConfig) -> list[np.ndarray]:
    """Pictures of an episode, by playing its actions again from its seed.

    Raises:
        ValueError: it has no seed, or what happens is not what was recorded.
    """
    about = next(iter(dataset.storage.get_episode_metadata([episode.id])))
    if (seed := about.get("seed")) is None:
        raise ValueError(
            f"{config.source} has no pictures in its observations (record.frame_key is '') and no "
            "seeds to play its episodes again; name the entry that is the picture"
        )
    env.reset(seed=int(seed))
    pictures = [as_picture(env.render())]
    for step, (action, reward) in enumerate(zip(episode.actions, episode.rewards, strict=True)):
        _, got, *_ = env.step(action)
        if not np.isclose(float(got), float(reward), atol=1e-4):
            raise ValueError(
                f"{config.source}: played again from its seed, episode {episode.id} gives reward "
                f"{float(got):g} at step {step} instead of {float(reward):g}; is record.env the "
                "environment of the dataset, in the same version?"
            )
        pictures.append(as_picture(env.render()))
    return pictures


def _cut(
    pictures: Any, episode: Any, nearest: NearestCommand, config: RecordConfig
) -> list[SimulatedChunk]:
    """An episode of single steps as chunks."""
    length, events = config.frames_per_chunk, list(config.events.values())
    values = [np.asarray(entry(episode.observations, e.key))[:, e.index] for e in events]
    actions = _listed(episode.actions, len(episode.rewards))
    chunks = []
    for first in range(0, len(actions), length):
        last = min(first + length, len(actions))
        ended, cut = bool(episode.terminations[last - 1]), bool(episode.truncations[last - 1])
        over = ended or cut
        if last - first < length and not over:
            break  # the dataset stops in the middle of a chunk
        # As a recorder sees it: the picture behind the end is not part of the episode.
        shown = last - (1 if over and last - first > 1 else 0)
        frames = [
            shrink(as_picture(pictures[i + 1]), config.frame_size) for i in range(first, shown)
        ]
        frames += frames[-1:] * (length - len(frames))
        counts = np.zeros(len(events), np.int16)
        for i, (event, value) in enumerate(zip(events, values, strict=True)):
            change = np.diff(value[first : shown + 1])
            counts[i] = (change > 0).sum() if event.change == "rise" else (change < 0).sum()
        chunks.append(
            SimulatedChunk(
                np.stack(frames),
                nearest.row(actions[first:last]),
                float(np.sum(episode.rewards[first:last])),
                counts,
                ended,
                cut,
            )
        )
        if len(chunks) == config.max_chunks_per_episode:
            break
    return chunks


def _listed(actions: Any, count: int) -> list[Any]:
    """The actions of an episode one by one; Minari keeps dict actions as a dict of arrays."""
    if isinstance(actions, Mapping):
        return [{k: v[i] for k, v in actions.items()} for i in range(count)]
    return list(actions)


def _whole_chunks(
    episode: Any, commands: Sequence[str], config: RecordConfig
) -> list[SimulatedChunk]:
    """An episode whose steps are chunks already, with the command's words or number as action.

    Raises:
        ValueError: a command or a chunk's shape that is not the configuration's.
    """
    chunks = []
    steps = zip(episode.actions, episode.observations[1:], episode.rewards, strict=True)
    for i, (action, frames, reward) in enumerate(steps):
        row = commands.index(action) if action in commands else action
        if isinstance(row, str) or not 0 <= int(row) < len(commands):
            raise ValueError(f"{config.source} has the command {action!r}, none of {commands}")
        if len(frames) != config.frames_per_chunk:
            raise ValueError(
                f"record.frames_per_chunk is {config.frames_per_chunk}; chunks of {config.source} "
                f"have {len(frames)} frames"
            )
        told = (episode.infos or {}).get("events", {})
        chunks.append(
            SimulatedChunk(
                np.stack([shrink(as_picture(f), config.frame_size) for f in frames]),
                int(row),
                float(reward),
                np.array([told[e][i + 1] for e in config.events], np.int16),
                bool(episode.terminations[i]),
                bool(episode.truncations[i]),
            )
        )
    return chunks
