"""Minari datasets: recordings that others made, taken as ours, and ours as datasets for others.

A dataset holds an action for every step, a recording a command for every chunk of T steps: the
command whose action is nearest to the mean of the chunk's actions. With actions that change every
step that is a blurred label, so datasets of held actions teach a world's commands best.

A recording's episode of n chunks becomes n observations and n - 1 steps: its first chunk is what is
seen at the start, and every further one is what came of the command held during it. The rewards are
the simulator's own. The command of the first chunk is not part of the dataset, nor is an episode of
a single chunk.

Legend: N chunks of an episode, T frames a chunk, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.spaces import Box, Discrete, Space
from safetensors import safe_open
from tqdm import tqdm

from magi_world.config import require
from magi_world.io.offline import DatasetConfig, check_name, text_space, write_dataset
from magi_world.simulator import (
    RecordConfig,
    SimulatedChunk,
    as_picture,
    entry,
    open_env,
    shrink,
)
from magi_world.training.data import shard_names, shard_path, shard_row, write_shard
from magi_world.training.policies import NearestCommand

if TYPE_CHECKING:
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_dataset import MinariDataset


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
        if env is None:
            pictures = entry(episode.observations, config.frame_key)
        else:
            pictures = _replayed(env, dataset, episode, config)
        yield _cut(pictures, episode, nearest, config)


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


@dataclass(frozen=True)
class ExportConfig:
    """observation: 'chunk' (T, H, W, 3) or 'frame', its last one (H, W, 3), both uint8;
    action: 'text', the command, or 'discrete', its row of the command table."""

    observation: str = "chunk"
    action: str = "text"

    def __post_init__(self) -> None:
        for name, known in (("observation", ("chunk", "frame")), ("action", ("text", "discrete"))):
            value = getattr(self, name)
            require(value in known, f"ExportConfig.{name} is {value!r}; it must be one of {known}")


@dataclass(frozen=True, eq=False)
class Episode:
    """frames: uint8 (N, T, H, W, 3).  command, reward, end: (N,).  events: (N, E).

    As in a shard; see `magi_world.training.collect`.
    """

    frames: np.ndarray
    command: np.ndarray
    reward: np.ndarray
    end: np.ndarray
    events: np.ndarray


def read_episodes(path: Path) -> Iterator[Episode]:
    """The episodes of a shard, each read when it is its turn."""
    with safe_open(path, framework="np") as shard:
        number = shard.get_tensor("episode")
        columns = {name: shard.get_tensor(name) for name in ("command", "reward", "end", "events")}
        frames = shard.get_slice("frames")
        starts = np.flatnonzero(np.diff(number, prepend=number[0] - 1)).tolist()
        for first, stop in zip(starts, [*starts[1:], len(number)], strict=True):
            rows = {name: column[first:stop] for name, column in columns.items()}
            yield Episode(frames[first:stop], **rows)


def export_recording(
    paths: Sequence[Path], name: str, record: RecordConfig, config: ExportConfig | None = None
) -> MinariDataset:
    """Write shards as the Minari dataset ``name``, one episode at a time.

    Where a recording was cut (at its longest episode, at the end of a shard) the last step is
    truncated. ``infos["events"]`` holds how often each recorded event happened, in every chunk.
    The metadata's ``commands`` is the command table.

    Args:
        paths: the shards, e.g. of `magi_world.training.data.split_shards`.
        name: of the dataset, like "arena/recorded-v0".
        record: what was recorded.

    Raises:
        ImportError: Minari is not installed.
        ValueError: no shard, a shard of another command table, a command that Minari cannot hold,
            no episode of two chunks, or a name that Minari refuses or has.
    """
    check_name(name)
    require(bool(paths), "there are no shards to export; record some first")
    config = config or ExportConfig()
    commands = list(record.actions)
    chunks = sum(_check_shard(path, record) for path in paths)
    frames = (record.frames_per_chunk,) if config.observation == "chunk" else ()
    shape = (*frames, *record.frame_size, 3)
    texts: Space[Any] = text_space(commands)
    about = DatasetConfig(
        name,
        observation_space=Box(0, 255, shape, np.uint8),
        action_space=texts if config.action == "text" else Discrete(len(commands)),
        algorithm=record.policy,
        description=f"{chunks} chunks of {record.env}, {record.frames_per_chunk} frames each",
        facts={"commands": commands},
    )
    with tqdm(total=chunks, desc="export", unit="chunk") as bar:
        return write_dataset(about, _buffers(paths, record, config, bar))


def _buffers(
    paths: Sequence[Path], record: RecordConfig, config: ExportConfig, bar: tqdm[Any]
) -> Iterator[EpisodeBuffer]:
    empty = True
    for path in paths:
        for episode in read_episodes(path):
            if len(episode.command) > 1:
                empty = False
                yield _buffer(episode, record, config)
            bar.update(len(episode.command))
    require(not empty, "no episode has two chunks; there is nothing to export")


def _buffer(episode: Episode, record: RecordConfig, config: ExportConfig) -> EpisodeBuffer:
    from minari.data_collector import EpisodeBuffer

    held = episode.command[1:].tolist()
    commands = list(record.actions)
    terminations = episode.end[1:] == 1
    truncations = episode.end[1:] == 2
    truncations[-1] |= not terminations[-1]
    frames = episode.frames if config.observation == "chunk" else episode.frames[:, -1]
    return EpisodeBuffer(
        observations=list(frames),
        actions=[commands[row] for row in held] if config.action == "text" else held,
        rewards=episode.reward[1:].tolist(),
        terminations=terminations.tolist(),
        truncations=truncations.tolist(),
        infos={"events": dict(zip(record.events, list(episode.events.T), strict=True))},
    )


def _check_shard(path: Path, record: RecordConfig) -> int:
    """The number of chunks in a shard of ``record``."""
    with safe_open(path, framework="np") as shard:
        shape = shard.get_slice("frames").get_shape()
        events = shard.get_slice("events").get_shape()[1]
    commands, table = list(record.actions), shard_names(path)["commands"]
    require(table == commands, f"{path} was recorded with commands {table}, not {commands}")
    wanted = [record.frames_per_chunk, *record.frame_size, 3]
    require(shape[1:] == wanted, f"{path} has chunks of shape {shape[1:]}, not {wanted}")
    require(
        events == len(record.events),
        f"{path} counts {events} events, not {list(record.events)}",
    )
    return int(shape[0])
