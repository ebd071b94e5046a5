"""Recordings as Minari datasets: every chunk at its place, and nothing half-written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from toy import COMMANDS, record_config

from magi_world.io.offline import text_space
from magi_world.training import datasets as recordings
from magi_world.training.collect import record_shard
from magi_world.training.data import shard_path
from magi_world.training.datasets import ExportConfig, export_recording

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")
NAME = "toy/recorded-v0"


@pytest.fixture(autouse=True)
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Minari keeps its datasets."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    return tmp_path / "datasets"


def shards(recording: Path) -> list[Path]:
    return [shard_path(recording, i) for i in range(3)]


def runs(paths: list[Path]) -> Iterator[dict[str, np.ndarray]]:
    """The columns of every episode of two chunks or more."""
    for path in paths:
        shard = load_file(path)
        for number in np.unique(shard["episode"]):
            chosen = shard["episode"] == number
            if chosen.sum() > 1:
                yield {name: column[chosen] for name, column in shard.items()}


def test_every_chunk_is_read_back(recording: Path) -> None:
    export_recording(shards(recording), NAME, record_config())
    made = minari.load_dataset(NAME)
    expected = list(runs(shards(recording)))
    assert made.total_episodes == len(expected) > 3
    assert made.total_steps == sum(len(run["end"]) - 1 for run in expected)
    assert made.storage.metadata["commands"] == list(COMMANDS)
    for episode, run in zip(made.iterate_episodes(), expected, strict=True):
        assert (episode.observations == run["frames"]).all()
        assert made.observation_space.contains(episode.observations[0])
        assert list(episode.actions) == [COMMANDS[row] for row in run["command"][1:]]
        assert made.action_space.contains(episode.actions[0])
        assert (episode.rewards == run["reward"][1:]).all()
        assert (episode.terminations == (run["end"][1:] == 1)).all()
        assert (episode.infos["events"]["hit"] == run["events"][:, 0]).all()
        over = episode.terminations | episode.truncations
        assert over.tolist() == [False] * (len(over) - 1) + [True]
    ends = [episode.terminations[-1] for episode in made.iterate_episodes()]
    assert any(ends)
    assert not all(ends)


def test_last_frames_and_numbers(recording: Path) -> None:
    export_recording(shards(recording), NAME, record_config(), ExportConfig("frame", "discrete"))
    made = minari.load_dataset(NAME)
    assert made.action_space.n == len(COMMANDS)
    for episode, run in zip(made.iterate_episodes(), runs(shards(recording)), strict=True):
        assert (episode.observations == run["frames"][:, -1]).all()
        assert made.observation_space.contains(episode.observations[0])
        assert (episode.actions == run["command"][1:]).all()


def test_a_cut_recording_is_truncated(tmp_path: Path) -> None:
    config = record_config(max_chunks_per_episode=2)
    path = tmp_path / "shard.safetensors"
    record_shard(config, 0, path)
    export_recording([path], NAME, config)
    steps = [
        (e.terminations.tolist(), e.truncations.tolist())
        for e in minari.load_dataset(NAME).iterate_episodes()
    ]
    assert ([False], [True]) in steps


def test_what_is_not_finished_is_not_there(
    recording: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(BaseException):
        pass

    def cut_short(path: Path) -> Iterator[Any]:
        yield from whole(path)
        raise Stop

    whole = recordings.read_episodes
    monkeypatch.setattr(recordings, "read_episodes", cut_short)
    with pytest.raises(Stop):
        export_recording(shards(recording), NAME, record_config())
    assert list(minari.list_local_datasets()) == []
    monkeypatch.setattr(recordings, "read_episodes", whole)
    # What a killed process left does not count as a dataset, and is in nobody's way.
    (datasets / "toy" / ".recorded-v0.part" / "data").mkdir(parents=True)
    assert list(minari.list_local_datasets()) == []
    export_recording(shards(recording), NAME, record_config())
    assert list(minari.list_local_datasets()) == [NAME]
    assert not list((datasets / "toy").glob(".*"))
    with pytest.raises(ValueError, match="recorded-v0 exists"):
        export_recording(shards(recording), NAME, record_config())


def test_wrong_arguments_are_named(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = shards(recording)
    with pytest.raises(ValueError, match="observation is 'pixels'"):
        ExportConfig("pixels")
    with pytest.raises(ValueError, match="'recorded'; it must be like"):
        export_recording(paths, "recorded", record_config())
    with pytest.raises(ValueError, match="no shards"):
        export_recording([], NAME, record_config())
    with pytest.raises(ValueError, match="was recorded with commands"):
        export_recording(paths, NAME, record_config(actions={"stay": 0}))
    with pytest.raises(ValueError, match=r"chunks of shape \[8, 16, 16, 3\]"):
        export_recording(paths, NAME, record_config(frames_per_chunk=4))
    with pytest.raises(ValueError, match="counts 1 events"):
        export_recording(paths, NAME, replace(record_config(), events={}))
    with pytest.raises(ValueError, match="not printable"):
        text_space(["näher"])
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ImportError, match=r"pip install 'magi-world\[minari\]'"):
        export_recording(paths, NAME, record_config())


def test_nothing_but_single_chunks(tmp_path: Path) -> None:
    config = record_config(max_chunks_per_episode=1)
    path = tmp_path / "shard.safetensors"
    record_shard(config, 0, path)
    with pytest.raises(ValueError, match="no episode has two chunks"):
        export_recording([path], NAME, config)
    assert list(minari.list_local_datasets()) == []
