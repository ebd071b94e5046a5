"""Datasets of dreams: the same whatever the workers, resumable, in two forms."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from magi_world.agents.dream_files import write_lerobot, write_minari
from magi_world.agents.dreaming import (
    DreamConfig,
    DreamedEpisode,
    StartDreamer,
    dream,
    drop_units,
    local_pool,
    read_units,
    unit_file,
    world_spec,
)
from magi_world.io.media import load_video
from tests.agents.ray_worlds import write_world


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DreamConfig:
    folder = write_world(tmp_path_factory.mktemp("world") / "tiny")
    return DreamConfig(str(folder), episodes=5, chunks=3, batch=2, seed=7, device="cpu")


@pytest.fixture(scope="module")
def dreamed(config: DreamConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dreamed")
    dream(config, folder, local_pool(1), lambda done, total: None)
    return folder


def episodes(config: DreamConfig, folder: Path) -> list[DreamedEpisode]:
    return list(read_units(config, [unit_file(folder, unit) for unit in config.units]))


def test_episodes_are_whole(config: DreamConfig, dreamed: Path) -> None:
    found = episodes(config, dreamed)
    assert [episode.seed for episode in found] == [7, 8, 9, 10, 11]
    for episode in found:
        steps = len(episode.commands)
        assert len(episode.frames) == steps + 1
        assert episode.rewards.shape == (steps,)
        assert 1 <= steps <= 3
        assert episode.ended or steps == 3
    assert len({episode.frames.tobytes() for episode in found}) == 5


def test_other_workers_in_another_order_dream_the_same(
    config: DreamConfig, dreamed: Path, tmp_path: Path
) -> None:
    def backwards(start: StartDreamer, units: list[int]) -> list[int]:
        return [start()(unit) for unit in reversed(units)]

    dream(config, tmp_path, backwards, lambda done, total: None)
    for one, other in zip(episodes(config, dreamed), episodes(config, tmp_path), strict=True):
        assert one.commands == other.commands
        assert np.array_equal(one.frames, other.frames)
        assert np.array_equal(one.rewards, other.rewards)


def test_what_is_there_is_not_dreamed_again(config: DreamConfig, dreamed: Path) -> None:
    path = unit_file(dreamed, 1)
    before = path.read_bytes()
    path.unlink()
    dreamed_units = []

    def counting(start: StartDreamer, units: list[int]) -> list[int]:
        dreamed_units.extend(units)
        return [start()(unit) for unit in units]

    told = []
    dream(config, dreamed, counting, lambda done, total: told.append((done, total)))
    assert dreamed_units == [1]
    assert told == [(2, 3), (3, 3)]
    assert path.read_bytes() == before


def test_a_folder_is_of_one_configuration(config: DreamConfig, dreamed: Path) -> None:
    with pytest.raises(ValueError, match="begun with chunks = 3, not 4"):
        dream(replace(config, chunks=4), dreamed, local_pool(1), lambda done, total: None)
    for name in ("episodes", "chunks", "batch", "hold"):
        with pytest.raises(ValueError, match=f"{name} is 0"):
            replace(config, **{name: 0})


def test_video_and_parquet(config: DreamConfig, dreamed: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    spec, found = world_spec(config.world), episodes(config, dreamed)
    write_lerobot(tmp_path, config, spec, found)
    info = json.loads((tmp_path / "meta" / "info.json").read_text())
    assert info["total_episodes"] == 5
    total = 0
    for index, episode in enumerate(found):
        place = {"episode_chunk": 0, "episode_index": index}
        table = parquet.read_table(tmp_path / info["data_path"].format(**place)).to_pydict()
        film = load_video(
            tmp_path / info["video_path"].format(**place, video_key="observation.images.world")
        )
        count = (len(episode.commands) + 1) * spec.frames_per_chunk
        assert len(film) == len(table["index"]) == count
        assert table["index"][0] == total
        said = [spec.command_names[number] for number in table["action"][:: spec.frames_per_chunk]]
        assert tuple(said[:-1]) == episode.commands
        assert sum(table["next.reward"]) == pytest.approx(float(episode.rewards.sum()))
        assert table["next.done"] == [False] * (count - 1) + [True]
        total += count
    assert info["total_frames"] == total
    with pytest.raises(FileExistsError, match="holds a dataset already"):
        write_lerobot(tmp_path, config, spec, found)


def test_minari(
    config: DreamConfig, dreamed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari = pytest.importorskip("minari", reason="minari is not installed")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    found = episodes(config, dreamed)
    write_minari("dream/tiny-v0", config, world_spec(config.world), found)
    dataset = minari.load_dataset("dream/tiny-v0")
    assert dataset.total_episodes == 5
    for stored, episode in zip(dataset.iterate_episodes(), found, strict=True):
        assert np.array_equal(stored.observations, episode.frames)
        assert list(stored.actions) == list(episode.commands)


def test_units_can_go(config: DreamConfig, tmp_path: Path) -> None:
    dream(replace(config, episodes=1, batch=1), tmp_path, local_pool(1), lambda a, b: None)
    drop_units(tmp_path)
    assert not list(tmp_path.glob("units"))
