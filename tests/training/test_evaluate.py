"""What is measured of a world, on pictures and judges whose answers are known."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from PIL import Image
from toy import COMMANDS

from magi_world.training.data import ChunkDataset
from magi_world.training.evaluate import balanced, decibel, drift, eventful, sharpness
from magi_world.training.judge import (
    ClassifierConfig,
    InverseDynamics,
    accuracy,
    soften,
    train_classifier,
    watched_rows,
)
from magi_world.training.loop import LoopConfig
from magi_world.training.rollout import (
    filled,
    history_of,
    possible,
    reconstruction_rows,
    sampled,
    save_strip,
    situations,
)


def test_picture_measures() -> None:
    grey = torch.full((2, 8, 8, 3), 100, dtype=torch.uint8)
    off = grey + 5
    assert decibel(off, grey) == pytest.approx(
        20 * torch.log10(torch.tensor(51.0)).item(), rel=1e-5
    )
    assert sharpness(grey) == 0
    stripes = grey.clone()
    stripes[:, :, ::2] = 200
    assert sharpness(stripes) == pytest.approx(50)


def cut_into(data: ChunkDataset, length: int) -> ChunkDataset:
    """The same chunks as episodes of ``length``, the last chunk of each its end."""
    cut = copy.copy(data)
    cut.episode = torch.arange(len(data)) // length
    cut.end = (torch.arange(len(data)) % length == length - 1).long()
    return cut


@pytest.mark.parametrize(("length", "history"), [(30, 4), (6, 4), (5, 3), (4, 2), (3, 1)])
def test_situations_stay_inside_an_episode(
    train_data: ChunkDataset, length: int, history: int
) -> None:
    data = cut_into(train_data, length)
    assert history_of(data) == history
    rows = situations(data, 90, 1, seed=1)
    assert 8 <= len(rows) < 60
    assert len(situations(data, 3, 1, seed=1)) == 3
    for row in rows.tolist():
        clip = slice(row, row + history + 1)
        assert len(data.episode[clip].unique()) == 1
        assert not data.end[clip].any()


def test_short_episodes_are_measured_as_far_as_they_go(train_data: ChunkDataset) -> None:
    assert possible(cut_into(train_data, 30), (1, 4, 16, 64)) == [1, 4, 16]
    assert possible(cut_into(train_data, 5), (1, 4, 16, 64)) == [1]
    with pytest.raises(ValueError, match="no held-out episode has 69 chunks"):
        situations(cut_into(train_data, 30), 4, 64, seed=1)
    with pytest.raises(ValueError, match=r"lower record\.frames_per_chunk"):
        history_of(cut_into(train_data, 2))
    assert filled(torch.tensor([7, 9]), 4).tolist() == [7, 9, 9, 9]


def test_pictures_of_a_world_without_events(train_data: ChunkDataset) -> None:
    bare = copy.copy(train_data)
    assert bool((bare.events[eventful(bare, 4), 0] > 0).all())
    for events in (torch.zeros(len(bare), 0), torch.zeros(len(bare), 2)):
        bare.events = events
        rows = eventful(bare, 4)
        assert len(rows) == 4
        assert not bare.end[rows].any()


def test_the_judge_takes_frames_from_another_device() -> None:
    judge = InverseDynamics(8, (16, 16), range(3), 4).to("meta")
    assert judge.look(torch.zeros(2, 8, 16, 16, 3, dtype=torch.uint8)).device.type == "meta"


def test_the_judge_learns_real_chunks(train_data: ChunkDataset, tmp_path: Path) -> None:
    config = ClassifierConfig(
        LoopConfig(steps=60, batch=24, muon_lr=5e-3, adam_lr=3e-3, warmup=2, ema=0.8), width=8
    )
    judge = train_classifier(config, train_data, COMMANDS, tmp_path, torch.device("cpu"))
    whole = torch.nonzero(train_data.end == 0).squeeze(1)
    frames = train_data.pixels(whole)
    held = train_data.command[whole]
    assert balanced(judge.predict(frames), held, COMMANDS)["all"] > 0.8
    # What it is asked about left and right must turn round with the picture.
    turned = judge.predict(frames.flip(3))
    swapped = torch.tensor([0, 2, 1])[train_data.command[whole]]
    assert accuracy(turned, swapped, COMMANDS)["all"] > 0.8
    real = drift(judge, frames[:8].view(1, 8, *frames.shape[1:]), frames[:8])
    burnt = torch.full_like(frames[:8], 255)
    far = drift(judge, burnt.view(1, 8, *frames.shape[1:]), frames[:8])
    assert max(real) < min(far)


def test_a_judge_of_single_frames_sees_the_one_before(train_data: ChunkDataset) -> None:
    rows = torch.arange(len(train_data))
    new = train_data.first == rows
    assert torch.equal(watched_rows(train_data, rows), train_data.pixels(rows))
    single = copy.copy(train_data)
    single.frames = [f[:, -1:] for f in train_data.frames]
    seen = watched_rows(single, rows)
    assert seen.shape[1] == 2
    assert torch.equal(seen[:, 1:], single.pixels(rows))
    assert torch.equal(seen[:, :1], single.pixels(torch.where(new, rows, rows - 1)))
    assert 1 < int(new.sum()) < len(rows) / 2


def test_rare_commands_count_as_much_as_common_ones() -> None:
    found = balanced(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 0, 2]), COMMANDS)
    assert found["all"] == pytest.approx(0.5)


def test_softening_is_per_chunk_and_keeps_brightness() -> None:
    grey = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    soft = soften(grey, torch.tensor([0, 1, 5]))
    assert torch.equal(soft[0], grey[0])
    rough = [float(x.diff(dim=-1).abs().mean()) for x in (grey[1], soft[1], grey[2], soft[2])]
    assert rough[1] < 0.7 * rough[0]
    assert rough[3] < 0.3 * rough[2]
    assert torch.allclose(soft.mean((1, 2, 3)), grey.mean((1, 2, 3)), atol=0.05)


def test_accuracy_per_command() -> None:
    found = accuracy(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]), COMMANDS)
    assert found == {"all": 0.75, "stay": 0.5, "go left": 1.0}
    model = InverseDynamics(8, (16, 16), range(3), 4)
    assert model.predict(torch.zeros(5, 8, 16, 16, 3, dtype=torch.uint8), batch=2).shape == (5,)


def test_strips_are_written(tmp_path: Path) -> None:
    real = torch.zeros(2, 8, 16, 16, 3, dtype=torch.uint8)
    rows = reconstruction_rows(real, real + 9)
    assert [int(r[0, 0, 0, 0]) for r in rows] == [0, 9, 0, 9]
    path = save_strip([sampled(r, 4) for r in rows], tmp_path / "a" / "strip.png")
    assert Image.open(path).size == (2 * 4 * 16, 2 * (4 * 16 + 3 * 2))
    with pytest.raises(ValueError, match="one shape"):
        save_strip([real[0], real[0][:4]], tmp_path / "bad.png")


def test_the_judge_answers_with_rows_of_the_whole_table(
    train_data: ChunkDataset, tmp_path: Path
) -> None:
    config = ClassifierConfig(LoopConfig(steps=2, batch=8, warmup=1), width=4)
    device = torch.device("cpu")
    moves = ["go left", "go right"]
    plain = copy.copy(train_data)
    plain.mirror = {}
    judge = train_classifier(config, plain, COMMANDS, tmp_path, device, moves)
    assert set(judge.predict(plain.pixels(torch.arange(20))).tolist()) <= {1, 2}
