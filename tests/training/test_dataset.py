"""Shards as one data set, clips that stay inside an episode, mirrored twins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from toy import COMMANDS, record_config, tiny_vae

from magi_world.model.vae import VAE, frames_to_video
from magi_world.simulator import SimulatedChunk
from magi_world.training import loop
from magi_world.training.codec import start_from_pca
from magi_world.training.data import (
    ChunkDataset,
    LatentDataset,
    mirror_command,
    mirror_table,
    shard_path,
    shard_row,
    split_shards,
    write_shard,
)

SIDES = {"left": "right"}


def test_mirror_swaps_left_and_right() -> None:
    assert mirror_command("walk left while turning right", SIDES) == "walk right while turning left"
    assert mirror_table(COMMANDS, SIDES) == [0, 2, 1]
    with pytest.raises(ValueError, match="go left"):
        mirror_table(["go left"], SIDES)


def test_rows_cross_shards(train_data: ChunkDataset) -> None:
    assert len(train_data) == 60
    rows = torch.tensor([29, 30])
    frames = train_data.pixels(rows)
    assert torch.equal(frames[1], train_data.frames[1][0])
    flipped = train_data.pixels(rows, torch.tensor([False, True]))
    assert torch.equal(flipped[0], frames[0])
    assert torch.equal(flipped[1], frames[1].flip(2))


def test_starts_stay_inside_an_episode(train_data: ChunkDataset) -> None:
    starts = train_data.starts(3)
    assert len(starts)
    for row in starts.tolist():
        assert len(set(train_data.episode[row : row + 3].tolist())) == 1
        assert train_data.first[row] <= row
    others = set(range(58)) - set(starts.tolist())
    assert all(len(set(train_data.episode[r : r + 3].tolist())) > 1 for r in others)


def test_latents_are_those_of_the_mirrored_picture(train_data: ChunkDataset) -> None:
    torch.manual_seed(0)
    vae = VAE(tiny_vae())
    data = LatentDataset(vae, train_data, COMMANDS)
    generator = torch.Generator().manual_seed(5)
    rows, side = data.draw(3, 2, generator)
    assert rows.shape == (3, 2)
    assert side.shape == (3,)
    clips, command = data.clips(rows, side)
    assert clips.shape == (3, 2, 6, 2, 2, 2)
    again, same = data.clips(*data.draw(3, 2, torch.Generator().manual_seed(5)))
    assert torch.equal(clips, again)
    assert torch.equal(command, same)
    side, row = torch.tensor([1]), torch.tensor([4])
    frames = train_data.pixels(row).flip(3)
    expected = vae.encode((frames.permute(0, 4, 1, 2, 3).float() / 127.5) - 1)
    torch.testing.assert_close(data.latents(side, row), expected, rtol=1e-3, atol=1e-3)
    mirrored = data.command[1] == torch.tensor([0, 2, 1])[train_data.command]
    assert mirrored.all()


def test_latents_are_float32_where_bfloat16_is_faster(
    train_data: ChunkDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Constants of 1000 keep the autoencoder's norms linear: bfloat16 would lose the picture."""
    monkeypatch.setattr(loop, "bfloat16_pays", lambda device: True)
    vae, rows = VAE(tiny_vae()), torch.arange(8)
    video = frames_to_video(train_data.pixels(rows))
    start_from_pca(vae, video)
    latents = LatentDataset(vae, train_data, COMMANDS).latents(torch.zeros_like(rows), rows)
    torch.testing.assert_close(latents, vae.encode(video), rtol=2e-3, atol=2e-3)


def test_rare_commands_are_drawn_more_often(train_data: ChunkDataset) -> None:
    data = LatentDataset(VAE(tiny_vae()), train_data, COMMANDS)
    starts, weights = data.windows(1)
    assert (train_data.end[starts] == 0).all()
    count = torch.bincount(train_data.command, minlength=3).float()
    symmetric = (count + count[[0, 2, 1]]) / 2
    share = symmetric[train_data.command[starts]]
    assert weights[share.argmin()] == weights.max()
    assert weights[share.argmax()] == weights.min()
    assert data.windows(1, 0.0)[1].unique().tolist() == [1]
    torch.testing.assert_close(data.windows(1, 1.0)[1], weights**2)


def test_clips_with_a_certain_event_are_drawn_more_often(train_data: ChunkDataset) -> None:
    data = LatentDataset(VAE(tiny_vae()), train_data, COMMANDS)
    starts, plain = data.windows(2)
    (name,) = train_data.event_names
    happened = train_data.events[:, 0] > 0
    assert 0 < int(happened.sum()) < len(happened)
    _, often = data.windows(2, often={name: 5.0})
    none = ~happened[starts] & ~happened[starts + 1]
    torch.testing.assert_close(often[none], plain[none])
    both = happened[starts] & happened[starts + 1]
    torch.testing.assert_close(often[both], 5 * plain[both])
    assert (often[~none] > plain[~none]).all()
    with pytest.raises(ValueError, match=f"no event 'gem'; the recording's events are {name}"):
        data.draw(1, 2, torch.Generator(), often={"gem": 2.0})


def test_nothing_is_mirrored_unless_it_is_asked_for(recording: Path) -> None:
    plain = ChunkDataset(split_shards(recording, 1)[0])
    generator = torch.Generator().manual_seed(0)
    assert not plain.sides(64, generator).any()
    assert plain.images(["up", "down"]).tolist() == [0, 1]


def test_missing_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="record some first"):
        ChunkDataset([])
    with pytest.raises(ValueError, match="held_out_shards"):
        split_shards(tmp_path, 1)


def test_a_turned_picture_is_written_as_it_looks(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    turned = [draw.integers(256, size=(4, 6, 6, 3), dtype=np.uint8).swapaxes(1, 2) for _ in "ab"]
    chunks = [SimulatedChunk(f, 0, 0.0, np.zeros(1, np.int16), False, False) for f in turned]
    path = shard_path(tmp_path, 0)
    write_shard(record_config(), [shard_row(chunk, 0) for chunk in chunks], path)
    seen = ChunkDataset([path]).pixels(torch.arange(2))
    np.testing.assert_array_equal(seen.numpy(), np.stack(turned))
