"""Minari datasets as recordings: our chunks, pictures in observations, episodes played again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from safetensors.numpy import load_file
from toy import Bar, record_config

from magi_world.io.offline import DatasetConfig, write_dataset
from magi_world.simulator import EventConfig
from magi_world.training.collect import record
from magi_world.training.data import shard_path
from magi_world.training.datasets import export_recording

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")


@pytest.fixture(autouse=True)
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))


def collect(name: str, episodes: int = 6) -> None:
    """Episodes that hold one action each, for 40 steps at most, with the picture observed."""
    from minari.data_collector import EpisodeBuffer

    env, buffers = Bar(), []
    for i in range(episodes):
        seen, _ = env.reset(seed=i)
        observations: dict[str, list[Any]] = {k: [np.asarray(v)] for k, v in seen.items()}
        steps: list[tuple[float, bool, bool]] = []
        while not steps or not any(steps[-1][1:]):
            seen, reward, ended, cut, _ = env.step(i % 3)
            steps.append((reward, ended, cut))
            for key, value in seen.items():
                observations[key].append(np.asarray(value))
        rewards, ends, cuts = (list(column) for column in zip(*steps, strict=True))
        actions = [i % 3] * len(steps)
        buffers.append(EpisodeBuffer(i, i, None, observations, actions, rewards, ends, cuts))
    spaces = {
        "hits": gym.spaces.Box(0, 1000, (1,), np.float32),
        "screen": gym.spaces.Box(0, 255, (16, 16, 3), np.uint8),
    }
    about = DatasetConfig(name, gym.spaces.Dict(spaces), gym.spaces.Discrete(3), "constant")
    write_dataset(about, buffers)


def config(**changes: object) -> Any:
    return record_config(chunks=8, chunks_per_shard=4, **changes)


def test_pictures_and_events_of_a_dataset(tmp_path: Path) -> None:
    collect("bar/held-v0")
    record(config(source="minari:bar/held-v0"), tmp_path / "data")
    shards = [load_file(shard_path(tmp_path / "data", i)) for i in range(2)]
    rows = {k: np.concatenate([s[k] for s in shards]) for k in shards[0]}
    assert rows["frames"].shape == (8, 8, 16, 16, 3)
    bar = rows["frames"][:, :, 0, :, 0].argmax(-1).astype(int)
    whole = rows["end"] == 0
    for command, way in enumerate((0, -1, 1)):
        steps = np.diff(bar, axis=1)[whole & (rows["command"] == command)]
        assert set(np.unique(steps)) <= {0, way}
    assert (rows["events"][rows["command"] == 0] == 0).all()
    assert rows["events"][rows["command"] == 1].sum() > 0
    assert {1, 2} >= set(rows["end"][rows["end"] > 0].tolist()) != set()
    assert (rows["reward"][whole] == 8).all()


def test_episodes_are_played_again_where_there_are_no_pictures(tmp_path: Path) -> None:
    collect("bar/held-v0")
    there = config(source="minari:bar/held-v0", frame_key="")
    record(there, tmp_path / "replayed")
    record(config(source="minari:bar/held-v0"), tmp_path / "kept")
    for i in range(2):
        one, two = (load_file(shard_path(tmp_path / n, i)) for n in ("replayed", "kept"))
        assert all(np.array_equal(one[k], two[k]) for k in one)


def test_our_own_export_comes_back(tmp_path: Path, recording: Path) -> None:
    paths = [shard_path(recording, 0)]
    export_recording(paths, "bar/own-v0", record_config())
    before = load_file(paths[0])
    record(config(source="minari:bar/own-v0"), tmp_path / "data")
    after = load_file(shard_path(tmp_path / "data", 0))
    first = np.flatnonzero(np.diff(before["episode"], prepend=-1))
    kept = np.delete(np.arange(30), first)[:4]
    for name in ("frames", "command", "reward", "events"):
        assert np.array_equal(after[name], before[name][kept]), name


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'bar/none-v0', which is not on this machine"):
        record(config(source="minari:bar/none-v0"), tmp_path)
    collect("bar/held-v0", episodes=2)
    with pytest.raises(ValueError, match=r"record\.chunks is 90; .* has only \d+ chunks"):
        record(record_config(source="minari:bar/held-v0"), tmp_path)
    with pytest.raises(ValueError, match=r"record\.from must be"):
        record_config(source="hdf5:file")
    with pytest.raises(ValueError, match=r"no entry 'gone'; it has \['hits', 'screen'\]"):
        record(config(source="minari:bar/held-v0", events={"x": EventConfig("gone", 0)}), tmp_path)
