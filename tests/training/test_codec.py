"""The autoencoder's trainer: the PCA start is the linear code, equalising changes no picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy import tiny_vae

from magi_world.model.vae import VAE, frames_to_video
from magi_world.training.codec import (
    CodecConfig,
    codec_loss,
    equalise,
    patches,
    psnr,
    start_from_pca,
    train_codec,
)
from magi_world.training.data import ChunkDataset
from magi_world.training.loop import LoopConfig

LOOP = LoopConfig(steps=3, batch=2, muon_lr=1e-4, adam_lr=1e-5, warmup=1)
CONFIG = CodecConfig(tiny_vae(), LOOP, LOOP, compile=False)


@pytest.fixture(scope="module")
def video(train_data: ChunkDataset) -> torch.Tensor:
    return frames_to_video(train_data.pixels(torch.arange(len(train_data))))


def decibel(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(10 * torch.log10(4 / (a - b).square().mean()))


@torch.no_grad()
def test_the_start_is_the_linear_code(video: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = VAE(tiny_vae())
    bound = start_from_pca(model, video)
    rows = patches(video, model.config)
    u, s, v = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    linear = u[:, :6] * s[:6] @ v[:6] + rows.mean(0)
    assert bound == pytest.approx(decibel(linear, rows), abs=0.01)
    assert decibel(model.decode(model.encode(video)), video) > bound - 0.2
    with pytest.raises(ValueError, match="final_proj is False"):
        start_from_pca(VAE(tiny_vae(width=256, final_proj=False)), video)


class Shorter:
    """A recording whose chunks are four frames, one latent."""

    def __init__(self, data: ChunkDataset) -> None:
        self.data = data

    def pixels(self, rows: torch.Tensor) -> torch.Tensor:
        return self.data.pixels(rows)[:, :4]


@torch.no_grad()
def test_a_chunk_of_one_latent_is_measured_as_video(
    video: torch.Tensor, train_data: ChunkDataset
) -> None:
    torch.manual_seed(0)
    model = VAE(tiny_vae(video_length=4))
    start_from_pca(model, video[:, :, :4])
    made = model.decode(model.encode(video[:, :, :4]), first_frame_only=False)
    found = psnr(model, Shorter(train_data), torch.arange(len(train_data)))  # type: ignore[arg-type]
    assert found == pytest.approx(decibel(made.clamp(-1, 1), video[:, :, :4]), abs=0.1)


@torch.no_grad()
def test_equalising_changes_latents_only(video: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = VAE(tiny_vae())
    start_from_pca(model, video)
    before = model.decode(model.encode(video))
    spread = equalise(model, video)
    z = model.encode(video)
    torch.testing.assert_close(z.mean(dim=(0, 2, 3, 4)), torch.zeros(6), rtol=0, atol=1e-3)
    torch.testing.assert_close(z.std(dim=(0, 2, 3, 4)), spread, rtol=1e-3, atol=1e-3)
    assert float(spread.square().mean()) == pytest.approx(1)
    # PCA: the first number of a patch moves the picture most.
    assert spread.argmax() == 0
    torch.testing.assert_close(model.decode(z), before, rtol=1e-3, atol=2e-3)


def test_loss_weighs_what_is_rare_and_what_moves(video: torch.Tensor) -> None:
    mean = torch.zeros(3, 1, 16, 16)
    still = torch.zeros(1, 3, 8, 16, 16)
    still[:, :, :, 4, 4] = 1.0
    wrong_common, wrong_rare = still.clone(), still.clone()
    wrong_common[:, :, :, 12, 12] += 0.2
    wrong_rare[:, :, :, 4, 4] -= 0.2
    config = replace(CONFIG, gradient=0.0)
    common = codec_loss(wrong_common, still, mean, config)
    assert codec_loss(wrong_rare, still, mean, config) > 2 * common
    assert float(codec_loss(still, still, mean, config)) == 0
    jumping = still.clone()
    jumping[:, :, 1::2, 9, 9] = 0.5
    wrong_moving = jumping.clone()
    wrong_moving[:, :, :, 9, 9] += 0.2
    wrong_still = jumping.clone()
    wrong_still[:, :, :, 12, 12] += 0.2
    moved = codec_loss(wrong_moving, jumping, mean, config)
    assert moved > 1.2 * codec_loss(wrong_still, jumping, mean, config)


def test_a_single_frame_has_no_edges_in_time() -> None:
    video = torch.rand(2, 3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    mean = torch.full((3, 1, 16, 16), 0.5)
    assert float(codec_loss(video, video, mean, CONFIG)) == 0
    assert 0 < float(codec_loss(video + 0.1, video, mean, CONFIG)) < 10


def test_training_and_resuming(train_data: ChunkDataset, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    model = train_codec(CONFIG, train_data, train_data, tmp_path, cpu)
    again = train_codec(CONFIG, train_data, train_data, tmp_path, cpu)
    for (name, a), b in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert psnr(model, train_data, torch.arange(4)) > 15
    with pytest.raises(ValueError, match=r"scale_factor is 0.18215"):
        train_codec(
            replace(CONFIG, vae=tiny_vae(scale_factor=0.18215)),
            train_data,
            train_data,
            tmp_path,
            cpu,
        )
