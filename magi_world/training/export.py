"""A recording as a Minari dataset: the simulator's episodes, for offline learning.

An episode of n chunks has n observations and n - 1 steps: its first chunk is what is seen at the
start, and every further one is what came of the command held during it. The rewards are the
simulator's own. The command of the first chunk is not part of the dataset, nor is an episode of a
single chunk.

Legend: N chunks of an episode, T frames a chunk, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.spaces import Box, Discrete, Space
from safetensors import safe_open
from tqdm import tqdm

from magi_world.config import require
from magi_world.io.offline import DatasetConfig, check_name, text_space, write_dataset
from magi_world.training.record import RecordConfig

if TYPE_CHECKING:
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_dataset import MinariDataset


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

    As in a shard; see `magi_world.training.record`.
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
        paths: the shards, e.g. of `magi_world.training.dataset.split_shards`.
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
        table = (shard.metadata() or {}).get("commands", "").split("|")
        shape = shard.get_slice("frames").get_shape()
        events = shard.get_slice("events").get_shape()[1]
    commands = list(record.actions)
    require(table == commands, f"{path} was recorded with commands {table}, not {commands}")
    wanted = [record.frames_per_chunk, *record.frame_size, 3]
    require(shape[1:] == wanted, f"{path} has chunks of shape {shape[1:]}, not {wanted}")
    require(
        events == len(record.events),
        f"{path} counts {events} events, not {list(record.events)}",
    )
    return int(shape[0])
