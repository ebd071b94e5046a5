"""Tiles: where they start, how they blend, what they cost. Models here are simple functions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from magi_world.config import VAEConfig
from magi_world.model import tiling
from magi_world.model.tiling import TileConfig, Together, decode_tiled, encode_tiled
from magi_world.model.vae import VAE

CONFIG = VAEConfig(
    width=32,
    depth=1,
    heads=4,
    mlp_ratio=1,
    latent_channels=3,
    video_size=32,
    video_length=8,
    final_proj=True,
)
TILE = TileConfig(height=32, width=32, length=8)


class MeanVAE(VAE):
    """Latents are means of patches and pixels repeat them, so that tiles cannot matter."""

    def __init__(self) -> None:
        super().__init__(CONFIG)
        self.encoder = MeanEncoder()  # type: ignore[assignment]
        self.decoder = RepeatDecoder()  # type: ignore[assignment]
        self.seen: list[tuple[int, ...]] = []
        for part in (self.encoder, self.decoder):
            part.register_forward_pre_hook(lambda _, x: self.seen.append(tuple(x[0].shape[2:])))


class MeanEncoder(torch.nn.Module):
    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.nn.functional.avg_pool3d(video, (4, 8, 8))
        return mean, mean


class RepeatDecoder(torch.nn.Module):
    def forward(self, latents: Tensor) -> Tensor:
        for axis, n in ((2, 4), (3, 8), (4, 8)):
            latents = latents.repeat_interleave(n, axis)
        return latents


def tiny_vae() -> VAE:
    torch.manual_seed(0)
    return VAE(CONFIG).eval()


def test_released_tile() -> None:
    tile = TileConfig()
    assert (tile.height, tile.width, tile.length) == (256, 256, 12)
    assert tiling._in_patches(tile, VAEConfig()) == ((3, 32, 32), (3, 24, 24))


@pytest.mark.parametrize(("t", "h", "w"), [(8, 32, 32), (16, 56, 80), (4, 8, 24), (20, 40, 16)])
def test_tiles_have_the_shape_of_the_whole(t: int, h: int, w: int) -> None:
    vae = tiny_vae()
    video = torch.rand(2, 3, t, h, w) * 2 - 1
    latents = encode_tiled(vae, video, TILE)
    assert latents.shape == vae.encode(video).shape
    assert decode_tiled(vae, latents, TILE, first_frame_only=False).shape == video.shape


@pytest.mark.parametrize("temporal_overlap", [0.0, 0.5])
@pytest.mark.parametrize("spatial_overlap", [0.0, 0.25, 0.5, 0.75])
def test_tiles_of_a_local_model_change_nothing(
    spatial_overlap: float, temporal_overlap: float
) -> None:
    tile = TileConfig(32, 32, 8, spatial_overlap, temporal_overlap)
    vae = MeanVAE()
    video = torch.rand(2, 3, 12, 72, 56) * 2 - 1
    latents = encode_tiled(vae, video, tile)
    torch.testing.assert_close(latents, vae.encode(video))
    torch.testing.assert_close(decode_tiled(vae, latents, tile), vae.decode(latents))


def test_small_tiles_at_the_end_are_run_even_when_covered() -> None:
    vae = MeanVAE()
    encode_tiled(vae, torch.zeros(1, 3, 8, 32, 32), TILE)  # exactly one tile
    assert vae.seen == [(8, 32, 32), (8, 32, 8), (8, 8, 32), (8, 8, 8)]
    vae.seen.clear()
    decode_tiled(vae, torch.zeros(1, 3, 3, 1, 4), TILE)
    assert vae.seen == [(2, 1, 4), (2, 1, 1), (1, 1, 4), (1, 1, 1)]


def test_a_whole_clip_in_one_tile_equals_one_pass() -> None:
    vae = tiny_vae()
    video = torch.rand(2, 3, 8, 24, 24) * 2 - 1  # at most the stride, so one tile
    latents = encode_tiled(vae, video, TILE)
    torch.testing.assert_close(latents, vae.encode(video).detach())
    torch.testing.assert_close(decode_tiled(vae, latents, TILE), vae.decode(latents).detach())


class CountingDecoder(torch.nn.Module):
    """Every pixel of the k-th tile is k."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, latents: Tensor) -> Tensor:
        n, _, t, h, w = latents.shape
        self.calls += 1
        return torch.full((n, 3, t * 4, h * 8, w * 8), float(self.calls - 1))


def test_decoded_tiles_blend_with_unblended_neighbours() -> None:
    vae = tiny_vae()
    vae.decoder = CountingDecoder()  # type: ignore[assignment]
    video = decode_tiled(vae, torch.zeros(1, 3, 2, 6, 6), TILE)[0, 0, 0]
    ramp = torch.arange(8) / 8
    # Tiles 0 1 / 2 3; each gives its first 24 rows and columns.
    assert torch.equal(video[:24, :24], torch.zeros(24, 24))
    torch.testing.assert_close(video[0, 24:32], ramp)
    torch.testing.assert_close(video[24:32, 0], 2 * ramp)
    # Corner: up first (1 -> 3), then left (2 as decoded, not as blended, -> that).
    upper = 1 + 2 * ramp[:, None]
    torch.testing.assert_close(video[24:32, 24:32], 2 * (1 - ramp) + upper * ramp)
    assert torch.equal(video[32:, 32:], torch.full((16, 16), 3.0))


def test_encoded_tiles_blend_with_blended_neighbours() -> None:
    class CountingEncoder(torch.nn.Module):
        calls = 0

        def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
            self.calls += 1
            n, _, t, h, w = video.shape
            return torch.full((n, 3, t // 4, h // 8, w // 8), float(self.calls - 1)), video

    vae = tiny_vae()
    vae.encoder = CountingEncoder()  # type: ignore[assignment]
    tile = TileConfig(height=32, width=32, length=8, spatial_overlap=0.5)
    latents = encode_tiled(vae, torch.zeros(1, 3, 8, 32, 32), tile)[0, 0, 0]
    # Tiles 0 1 / 2 3, two latents shared: weights 0 and 1/2.
    want_left = torch.tensor([[0.0, 0.0], [1.0, 1.0]])  # tile 2 going on from tile 0
    torch.testing.assert_close(latents[2:, :2], want_left)
    up = torch.tensor([[0.0, 0.5], [1.5, 1.75]])  # tile 3 after tile 1, itself blended with 0
    left = torch.tensor([0.0, 1.0])[:, None]  # tile 2 as blended
    want = left * torch.tensor([1.0, 0.5]) + up * torch.tensor([0.0, 0.5])
    torch.testing.assert_close(latents[2:, 2:], want)


@pytest.mark.parametrize(("first_frame_only", "frames"), [(None, 1), (True, 1), (False, 4)])
def test_one_latent_frame(first_frame_only: bool | None, frames: int) -> None:
    vae = tiny_vae()
    latents = encode_tiled(vae, torch.rand(1, 3, 1, 40, 40), TILE)
    assert latents.shape == (1, 3, 1, 5, 5)
    video = decode_tiled(vae, latents, TILE, first_frame_only)
    assert video.shape == (1, 3, frames, 40, 40)
    every = decode_tiled(vae, latents, TILE, first_frame_only=False)
    torch.testing.assert_close(video, every[:, :, :frames])


def test_first_frame_only_decodes_one_row_of_tiles_in_time() -> None:
    vae = MeanVAE()
    latents = torch.randn(1, 3, 7, 2, 2)
    image = decode_tiled(vae, latents, TILE, first_frame_only=True)
    assert vae.seen == [(2, 2, 2)]
    torch.testing.assert_close(image, vae.decode(latents)[:, :, :1])


def test_a_batch_equals_its_clips() -> None:
    vae = tiny_vae()
    video = torch.rand(3, 3, 12, 40, 56) * 2 - 1
    latents = encode_tiled(vae, video, TILE)
    pixels = decode_tiled(vae, latents, TILE)
    for i in range(3):
        alone = encode_tiled(vae, video[i : i + 1], TILE)
        torch.testing.assert_close(alone, latents[i : i + 1])
        torch.testing.assert_close(decode_tiled(vae, alone, TILE), pixels[i : i + 1])


def test_a_tail_does_not_keep_its_tile_alive() -> None:
    tile = torch.zeros(1, 3, 8, 32, 32)
    tail = tiling._tail(tile, 8, 4)
    assert tail.untyped_storage().nbytes() == tile.untyped_storage().nbytes() // 4


@pytest.mark.parametrize(
    ("tile", "message"),
    [
        (TileConfig(height=30), r"TileConfig.height is 30 .* divisible by the patch \(8\)"),
        (TileConfig(width=48), r"TileConfig.width is 48 with an overlap of 0.25; .*\(36\)"),
        (TileConfig(length=6), r"TileConfig.length is 6 .* divisible by the patch \(4\)"),
        (TileConfig(length=12, temporal_overlap=0.5), r"its stride \(6\)"),
    ],
)
def test_tiles_that_are_not_whole_patches_are_refused(tile: TileConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode_tiled(tiny_vae(), torch.zeros(1, 3, 4, 8, 8), tile)
    with pytest.raises(ValueError, match=message):
        decode_tiled(tiny_vae(), torch.zeros(1, 3, 1, 1, 1), tile)


@pytest.mark.parametrize(
    "options", [{"height": 0}, {"length": -4}, {"spatial_overlap": 1.0}, {"temporal_overlap": -0.1}]
)
def test_impossible_tiles_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        TileConfig(**options)  # type: ignore[arg-type]


def test_clips_of_the_wrong_size_are_refused() -> None:
    with pytest.raises(ValueError, match="height is 36"):
        encode_tiled(tiny_vae(), torch.zeros(1, 3, 8, 36, 32), TILE)
    with pytest.raises(ValueError, match="latents has shape"):
        decode_tiled(tiny_vae(), torch.zeros(1, 16, 2, 4, 4), TILE)


@pytest.mark.parametrize("most", [1, 3, 8])
def test_tiles_in_batches_come_out_in_their_order(most: int) -> None:
    vae = tiny_vae()
    video = torch.rand(2, 3, 16, 56, 80) * 2 - 1
    alone = encode_tiled(vae, video, TILE)
    sizes: list[int] = []
    vae.encoder.register_forward_pre_hook(lambda _, x: sizes.append(len(x[0])))
    together = encode_tiled(vae, video, TILE, Together(most))
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    # Tiles begin every 24 pixels and 8 frames: 2 x 2 x 3 of them are full, of two clips each.
    assert max(sizes) == 2 * most
    latents = torch.randn(1, 3, 4, 7, 10)
    torch.testing.assert_close(
        decode_tiled(vae, latents, TILE, spread=Together(most)),
        decode_tiled(vae, latents, TILE),
        atol=1e-5,
        rtol=1e-5,
    )
