"""The heads on dreams: the right chunks are dreamed, and the figures are what they are called."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from toy import record_config
from toy_world import write_config, write_world

from magi_world.io.package import read_package
from magi_world.model.heads import Heads, HeadsConfig
from magi_world.model.vae import frames_to_video
from magi_world.training.collect import record_shard
from magi_world.training.data import ChunkDataset
from magi_world.training.heads import (
    DreamHeadsConfig,
    draw_targets,
    dreamed_events,
    event_figures,
    labels,
    measure_dreamed_heads,
    real_events,
)
from magi_world.training.rollout import HISTORY, begin
from magi_world.training.settings import WorldTrainConfig, read_settings
from magi_world.world.world import World


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> WorldTrainConfig:
    return read_settings(write_config(tmp_path_factory.mktemp("config") / "bar.yaml"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ChunkDataset:
    """Three episodes, of 12, 12 and 6 chunks."""
    path = tmp_path_factory.mktemp("data") / "shard.safetensors"
    record_shard(record_config(env_options={"most": 1000, "age": 96}), 0, path)
    return ChunkDataset([path])


@pytest.fixture(scope="module")
def world(config: WorldTrainConfig, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two worlds with random weights and heads."""
    torch.manual_seed(5)
    heads = Heads(HeadsConfig(6, 2, (2, 2), ("hit", "death"), (1.0, 0.0), "death", width=8))
    for weight in heads.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return World(read_package(write_world(config, tmp_path_factory.mktemp("world"), heads)), 2)


def test_the_targets_are_dreamed(world: World, data: ChunkDataset) -> None:
    heads = world.parts.heads
    assert heads is not None
    targets = torch.tensor([6, 18, 9])
    said = dreamed_events(world, data, targets, 2, seed=3)
    # By hand, for both batches; the second has one target only.
    for part, rows in ((slice(0, 2), [6, 18]), (slice(2, 3), [9, 9])):
        begin(world, data, torch.tensor(rows) - 1 - HISTORY, 3)
        for behind in (1, 0):
            held = [world.spec.command_names[int(data.command[r - behind])] for r in rows]
            chunk = world.step(held)
        seen = torch.stack(list(heads(chunk.seen)["events"].values()), 1)
        torch.testing.assert_close(said[part], seen[: part.stop - part.start])
    assert not torch.allclose(said, dreamed_events(world, data, targets, 1, seed=3), atol=1e-4)


def test_real_latents_are_the_targets_own(world: World, data: ChunkDataset) -> None:
    vae, heads = world.parts.vae, world.parts.heads
    assert heads is not None
    rows = torch.tensor([5, 20])
    z = vae.scale(vae.encode(frames_to_video(data.pixels(rows))))
    expected = torch.stack(list(heads(z)["events"].values()), 1)
    torch.testing.assert_close(real_events(world, data, rows, batch=1), expected)


def test_events_are_drawn_often_and_weighed_back(
    config: WorldTrainConfig, data: ChunkDataset
) -> None:
    truth = labels(config.heads, data, ["hit"])
    truth[:, 0] = 0
    truth[[7, 21], 0] = 1  # rare, and neither at the start of an episode
    possible = [r for r in range(30) if r % 12 >= 5]
    rows, weight = draw_targets(data, truth, 6, 5, seed=0)
    assert set(rows.tolist()) < set(possible)
    assert {7, 21} < set(rows.tolist())
    assert len(rows.unique()) == 6
    assert float((weight * truth[rows, 0]).sum()) == pytest.approx(2 / len(possible))
    every, weight = draw_targets(data, truth, 1000, 5, seed=0)
    assert sorted(every.tolist()) == possible
    assert torch.allclose(weight, torch.full_like(weight, 1 / len(possible)))
    with pytest.raises(ValueError, match="has 13 chunks"):
        draw_targets(data, truth, 6, 12, seed=0)


def test_figures_of_one_event() -> None:
    truth = torch.tensor([1.0, 1.0, 0.0, 0.0])
    said = torch.tensor([0.9, 0.3, 0.6, 0.1])
    told = event_figures(said, truth, torch.full((4,), 1.0))
    assert told["share"] == pytest.approx(0.5)
    assert told["mean_prediction"] == pytest.approx(0.475)
    assert told["brier"] == pytest.approx((0.01 + 0.49 + 0.36 + 0.01) / 4)
    assert told["brier_of_share"] == pytest.approx(0.25)
    assert (told["precision"], told["recall"]) == (pytest.approx(0.5), pytest.approx(0.5))
    # Everything above 0.1 .. 0.3 is a hit: two of three are right, and none is missed.
    assert 0.1 < told["best_threshold"] < 0.3
    assert told["best_precision"] == pytest.approx(2 / 3)
    assert told["best_recall"] == pytest.approx(1.0)
    assert told["best_f1"] == pytest.approx(0.8)
    # A false alarm that stands for few chunks costs little.
    told = event_figures(said, truth, torch.tensor([1.0, 1.0, 0.2, 1.8]))
    assert told["precision"] == pytest.approx(1 / 1.2)
    never = event_figures(said, torch.zeros(4), torch.full((4,), 1.0))
    assert (never["share"], never["best_f1"], never["recall"]) == (0, 0, 0)
    constant = event_figures(torch.full((4,), 0.4), truth, torch.full((4,), 1.0))
    assert constant["best_threshold"] < 0.4
    assert constant["best_recall"] == pytest.approx(1.0)


def test_all_of_it(world: World, data: ChunkDataset) -> None:
    rows = torch.arange(len(data))
    said = real_events(world, data, rows)
    middle = said[draw_targets(data, said, 1000, HISTORY + 1, 0)[0]].median(0).values
    truth = (said > middle).float()  # what the heads say of the real latents, at this threshold
    config = DreamHeadsConfig(targets=6, lengths=(1, 2), seed=1)
    told = measure_dreamed_heads(world, data, truth, config)
    assert list(told) == ["real", "1", "2"]
    assert list(told["real"]) == ["hit", "death"]
    for event, real in told["real"].items():
        assert 0 < real["share"] < 1, "or the test says nothing"
        assert real["best_f1"] == pytest.approx(1), event
        assert told["1"][event]["brier"] != told["2"][event]["brier"]
        assert {told[where][event]["share"] for where in told} == {real["share"]}
    assert told == measure_dreamed_heads(world, data, truth, config)


def test_what_cannot_be_measured_is_named(world: World, data: ChunkDataset) -> None:
    with pytest.raises(ValueError, match=r"truth has shape \(30, 1\); it must be \(30, 2\)"):
        measure_dreamed_heads(world, data, torch.zeros(30, 1))
    with pytest.raises(ValueError, match="bar has no heads"):
        measure_dreamed_heads(World(replace(world.parts, heads=None)), data, torch.zeros(30, 2))
    with pytest.raises(ValueError, match="targets is 0"):
        DreamHeadsConfig(targets=0)
    with pytest.raises(ValueError, match="lengths is"):
        DreamHeadsConfig(lengths=(0, 1))
