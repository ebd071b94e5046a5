"""Dreamed episodes as datasets: video and parquet in LeRobot's layout, or Minari.

Shapes: n chunks of an episode, T frames a chunk, H, W pixels.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from magi_world.agents.dreaming import DreamConfig, DreamedEpisode
from magi_world.config import require
from magi_world.io.media import VideoConfig, VideoWriter
from magi_world.io.offline import DatasetConfig, check_name, text_space, write_dataset
from magi_world.world.spec import WorldSpec

VERSION = "v2.1"
CHUNK = 1000  # episodes of a folder
DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
CAMERA = "observation.images.world"


def check_parquet() -> None:
    """Raise ImportError where parquet files cannot be written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "parquet files need pyarrow; pip install 'magi-world[ray]', or pyarrow alone"
        ) from error


def write_lerobot(
    folder: Path, config: DreamConfig, spec: WorldSpec, episodes: Iterable[DreamedEpisode]
) -> None:
    """Write ``data``, ``videos`` and ``meta`` into a folder; ``meta`` comes last.

    A row is a video frame; its action is the number of the command that is obeyed next, and its
    reward, on the last frame of a chunk, what that command brought.

    Raises:
        ImportError: pyarrow is not there.
        FileExistsError: the folder holds a dataset already.
    """
    check_parquet()
    if (folder / "meta").exists():
        raise FileExistsError(f"{folder} holds a dataset already; name another folder")
    for part in ("data", "videos", "meta.part"):
        shutil.rmtree(folder / part, ignore_errors=True)
    tasks = {command: number for number, command in enumerate(spec.command_names)}
    video = VideoConfig(spec.fps, spec.frame_size, upscale=1)
    records, total = [], 0
    for index, episode in enumerate(episodes):
        for command in episode.commands:
            tasks.setdefault(command, len(tasks))
        place = {"episode_chunk": index // CHUNK, "episode_index": index, "video_key": CAMERA}
        film = folder / VIDEO.format(**place)
        with VideoWriter(film, video) as writer:
            writer.write(episode.frames.reshape(-1, *episode.frames.shape[2:]))
        rows = _rows(episode, index, total, tasks, spec.fps)
        _write_parquet(folder / DATA.format(**place), rows)
        length = len(rows["index"])
        total += length
        said = list(dict.fromkeys(episode.commands))
        records.append(
            {"episode_index": index, "tasks": said, "length": length, "seed": episode.seed}
        )
    require(bool(records), "there are no episodes to write")
    meta = folder / "meta.part"
    meta.mkdir(parents=True)
    info = _info(spec, video, records, total, tasks, config)
    (meta / "info.json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
    _write_lines(meta / "episodes.jsonl", records)
    named = [{"task_index": number, "task": command} for command, number in tasks.items()]
    _write_lines(meta / "tasks.jsonl", named)
    os.replace(meta, folder / "meta")


def write_minari(
    name: str, config: DreamConfig, spec: WorldSpec, episodes: Iterable[DreamedEpisode]
) -> None:
    """Write a Minari dataset; a step is a chunk, and frames are lossless.

    Raises:
        ImportError, ValueError: as `magi_world.io.offline.check_name`.
    """
    check_name(name)
    height, width = spec.frame_size
    shape = (spec.frames_per_chunk, height, width, 3)
    dataset = DatasetConfig(
        name,
        observation_space=Box(0, 255, shape, np.uint8),
        action_space=text_space(spec.command_names),
        algorithm=config.agent,
        description=f"dreamed by the world {spec.name}",
        facts={"world": spec.name, "fingerprint": spec.fingerprint, "fps": spec.fps},
    )
    write_dataset(dataset, _buffers(episodes))


def _buffers(episodes: Iterable[DreamedEpisode]) -> Iterator[Any]:
    from minari.data_collector import EpisodeBuffer

    for index, episode in enumerate(episodes):
        count = len(episode.commands)
        last = np.arange(count) == count - 1
        yield EpisodeBuffer(
            id=index,
            seed=episode.seed,
            observations=list(episode.frames),
            actions=list(episode.commands),
            rewards=[float(r) for r in episode.rewards],
            terminations=[bool(end) for end in last & episode.ended],
            truncations=[bool(cut) for cut in last & (not episode.ended)],
        )


def _rows(
    episode: DreamedEpisode, index: int, first: int, tasks: dict[str, int], fps: float
) -> dict[str, np.ndarray]:
    chunks, frames = episode.frames.shape[:2]
    count = chunks * frames
    # What is obeyed next; behind the last chunk nothing is, so the last command stands there.
    said = [*episode.commands, episode.commands[-1]]
    action = np.repeat([tasks[command] for command in said], frames)
    reward = np.zeros(count, np.float32)
    reward[frames - 1 : count - frames : frames] = episode.rewards
    done = np.zeros(count, bool)
    done[-1] = True
    return {
        "action": action.astype(np.int64),
        "task_index": action.astype(np.int64),
        "next.reward": reward,
        "next.done": done,
        "timestamp": (np.arange(count) / fps).astype(np.float32),
        "frame_index": np.arange(count, dtype=np.int64),
        "episode_index": np.full(count, index, np.int64),
        "index": np.arange(first, first + count, dtype=np.int64),
    }


def _write_parquet(path: Path, rows: dict[str, np.ndarray]) -> None:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(rows), path)


def _write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8")


def _info(
    spec: WorldSpec,
    video: VideoConfig,
    records: list[dict[str, Any]],
    total: int,
    tasks: dict[str, int],
    config: DreamConfig,
) -> dict[str, Any]:
    height, width = video.video_size
    picture = {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": {"video.fps": spec.fps, "video.codec": "h264", "video.pix_fmt": "yuv420p"},
    }
    whole = {"dtype": "int64", "shape": [1], "names": None}
    return {
        "codebase_version": VERSION,
        "robot_type": spec.name,
        "total_episodes": len(records),
        "total_frames": total,
        "total_tasks": len(tasks),
        "total_videos": len(records),
        "total_chunks": -(-len(records) // CHUNK),
        "chunks_size": CHUNK,
        "fps": spec.fps,
        "splits": {"train": f"0:{len(records)}"},
        "data_path": DATA,
        "video_path": VIDEO,
        "features": {
            CAMERA: picture,
            **dict.fromkeys(("action", "task_index", "frame_index"), whole),
            **dict.fromkeys(("episode_index", "index"), whole),
            "next.reward": {"dtype": "float32", "shape": [1], "names": None},
            "next.done": {"dtype": "bool", "shape": [1], "names": None},
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        },
        "magi_world": {
            "fingerprint": spec.fingerprint,
            "agent": config.agent,
            "seed": config.seed,
            "chunks": config.chunks,
        },
    }
