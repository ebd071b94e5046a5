"""The autoencoder: shapes, sizes, the image rule, precision, training and refusals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from magi_world.config import VAEConfig
from magi_world.model.vae import VAE, frames_to_video, normalise_heads, video_to_frames

TINY = VAEConfig(
    width=32,
    depth=2,
    heads=4,
    mlp_ratio=2,
    latent_channels=6,
    video_size=16,
    video_length=8,
    final_proj=True,
)


def tiny_vae(config: VAEConfig = TINY) -> VAE:
    torch.manual_seed(0)
    vae = VAE(config).eval()
    with torch.no_grad():  # larger than at the start of training, so that nothing is near zero
        for p in vae.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return vae


def clip(n: int = 2, t: int = 8, h: int = 16, w: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, t, h, w, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_released_size() -> None:
    with torch.device("meta"):
        vae = VAE(VAEConfig())
    count = sum(p.numel() for p in vae.parameters())
    block = 12 * 1024**2 + (3 + 1 + 4 + 1 + 2) * 1024  # four products, their biases, norm2
    positions = 1 + 4 * 32 * 32
    shared = 24 * block + (1 + positions + 2) * 1024
    encoder = shared + (3 * 256 + 1) * 1024 + 1025 * 32
    decoder = shared + 17 * 1024 + 3 * (4 * 27 + 1)
    assert count == encoder + decoder
    assert round(count / 1e6) == 614


@pytest.mark.parametrize(("t", "h", "w"), [(8, 16, 16), (4, 24, 8), (12, 8, 40)])
@torch.no_grad()
def test_shapes_at_any_size(t: int, h: int, w: int) -> None:
    vae = tiny_vae()
    video = clip(2, t, h, w)
    latents = vae.encode(video)
    assert latents.shape == (2, 6, t // 4, h // 8, w // 8)
    assert vae.decode(latents, first_frame_only=False).shape == video.shape


def test_encoder_gives_mean_and_log_variance() -> None:
    vae = tiny_vae()
    mean, logvar = vae.encoder(clip())
    assert mean.shape == logvar.shape == (2, 6, 2, 2, 2)
    torch.testing.assert_close(vae.encode(clip()), mean)
    assert not torch.equal(mean, logvar)


@torch.no_grad()
def test_image_is_repeated_and_first_latent_kept() -> None:
    vae = tiny_vae()
    image = clip(t=1)
    latents = vae.encode(image)
    assert latents.shape[2] == 1
    torch.testing.assert_close(latents, vae.encode(image.repeat(1, 1, 4, 1, 1)))
    assert vae.decode(latents).shape == image.shape


@torch.no_grad()
def test_frames_kept_of_a_clip_follow_the_argument() -> None:
    vae = tiny_vae()
    one, two = torch.randn(2, 6, 1, 2, 2), torch.randn(2, 6, 2, 2, 2)
    every = vae.decode(one, first_frame_only=False)
    assert every.shape[2] == 4
    torch.testing.assert_close(vae.decode(one), every[:, :, :1])
    assert vae.decode(two).shape[2] == 8
    torch.testing.assert_close(vae.decode(two, first_frame_only=True), vae.decode(two)[:, :, :1])


def test_positions_at_the_trained_size_are_the_parameter() -> None:
    encoder = tiny_vae().encoder
    assert encoder.positions(2, 2, 2) is encoder.pos_embed
    # The interpolation that is left out there would have changed nothing.
    grid = encoder.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (2, 2, 2))
    same = torch.nn.functional.interpolate(grid, size=(2, 2, 2), mode="trilinear")
    torch.testing.assert_close(same, grid)


def test_resized_positions_keep_the_class_position() -> None:
    encoder = tiny_vae().encoder
    table = encoder.positions(3, 1, 4)
    assert table.shape == (1, 1 + 12, 32)
    assert torch.equal(table[:, 0], encoder.pos_embed[:, 0])
    # align_corners false: height 2 -> 1 is the mean of both rows, time 2 -> 3 keeps its ends.
    grid = encoder.pos_embed[0, 1:].view(2, 2, 2, 32).mean(1)
    torch.testing.assert_close(table[0, 1:].view(3, 1, 4, 32)[0, 0, 0], grid[0, 0])


@torch.no_grad()
def test_resized_positions_are_kept_while_they_hold() -> None:
    encoder = tiny_vae().encoder.requires_grad_(False)
    table = encoder.positions(3, 1, 4)
    assert encoder.positions(3, 1, 4) is table
    encoder.pos_embed.mul_(2)
    torch.testing.assert_close(encoder.positions(3, 1, 4), 2 * table)
    encoder.requires_grad_(True)
    assert encoder.positions(3, 1, 4) is not encoder.positions(3, 1, 4)


@torch.no_grad()
def test_each_clip_of_a_batch_is_on_its_own() -> None:
    vae = tiny_vae()
    video = clip(3)
    latents = vae.encode(video)
    pixels = vae.decode(latents)
    for i in range(3):
        torch.testing.assert_close(vae.encode(video[i : i + 1]), latents[i : i + 1])
        torch.testing.assert_close(vae.decode(latents[i : i + 1]), pixels[i : i + 1])


def test_heads_are_normalised_by_the_population_deviation() -> None:
    x = torch.randn(2, 5, 3, 4, 8) * 3 + 1
    want = (x - x.mean(-1, keepdim=True)) / (x.std(-1, correction=0, keepdim=True) + 1e-5)
    torch.testing.assert_close(normalise_heads(x), want)


def test_normalising_equal_entries_has_a_finite_gradient() -> None:
    x = torch.zeros(2, 8, requires_grad=True)
    y = normalise_heads(x)
    (y * torch.randn(2, 8)).sum().backward()
    assert torch.equal(y, torch.zeros(2, 8))
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_scale_of_the_latents() -> None:
    vae = tiny_vae()
    latents = torch.randn(1, 6, 1, 2, 2)
    torch.testing.assert_close(vae.scale(latents), latents * 0.18215)
    torch.testing.assert_close(vae.unscale(vae.scale(latents)), latents)


@torch.no_grad()
def test_bfloat16_is_near_float32() -> None:
    vae = tiny_vae()
    latents = vae.encode(clip())
    pixels = vae.decode(latents)
    half = vae.bfloat16()
    assert half.encode(clip()).dtype == torch.bfloat16
    for got, want in ((half.encode(clip()), latents), (half.decode(latents), pixels)):
        assert (got.float() - want).abs().max() < 0.05 * want.abs().max()


def test_trains() -> None:
    torch.manual_seed(0)
    vae = VAE(TINY)
    video = clip(1)
    optimiser = torch.optim.Adam(vae.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        mean, logvar = vae.encoder(video)
        loss = (vae.decoder(mean) - video).square().mean() + 1e-4 * logvar.square().mean()
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_compiles_to_one_graph() -> None:
    vae = tiny_vae()
    video = clip()
    with torch.no_grad():
        want = vae.encode(video), vae.decode(vae.encode(video))
        encode = torch.compile(vae.encode, fullgraph=True, backend="eager")
        decode = torch.compile(vae.decode, fullgraph=True, backend="eager")
        got = encode(video), decode(want[0])
    torch.testing.assert_close(got, want)


def test_names_without_final_proj_and_without_qkv_bias() -> None:
    config = VAEConfig(width=256, depth=1, heads=4, video_size=16, video_length=4, qkv_bias=False)
    names = set(VAE(config).state_dict())
    assert "encoder.blocks.0.attn.qkv.bias" not in names
    assert not any("final" in name for name in names)
    assert {"encoder.patch_embed.proj.weight", "decoder.last_layer.bias"} <= names


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (clip(t=6), r"frames is 6; .* by 4 \(nearest: 4 or 8\), or 1 for an image"),
        (clip(t=3), r"frames is 3; .* by 4 \(nearest: 4\)"),
        (clip(h=20), r"height is 20; .* by 8 \(nearest: 16 or 24\)"),
        (clip(w=4), r"width is 4; .* by 8 \(nearest: 8\)"),
        (clip()[:, :2], r"shape \(2, 2, 8, 16, 16\); it must be \(N, 3, T, H, W\)"),
        (clip()[0], r"shape \(3, 8, 16, 16\)"),
        (clip()[:0], r"no empty axis"),
        (clip().to(torch.uint8), r"torch.uint8; it must be floating point \(frames_to_video"),
    ],
)
def test_encode_refuses(video: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_vae().encode(video)


def test_encoder_itself_takes_no_image() -> None:
    with pytest.raises(ValueError, match=r"frames is 1; it must be divisible by 4 \(nearest: 4\)$"):
        tiny_vae().encoder(clip(t=1))


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (torch.zeros(1, 5, 2, 2, 2), r"latents has shape .*\(N, 6, T, H, W\)"),
        (torch.zeros(1, 6, 2, 2), r"latents has shape"),
        (torch.zeros(1, 6, 0, 2, 2), r"no empty axis"),
        (torch.zeros(1, 6, 2, 2, 2, dtype=torch.int64), r"latents has dtype torch.int64"),
    ],
)
def test_decode_refuses(latents: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_vae().decode(latents)


def test_every_byte_survives_the_way_to_float_and_back() -> None:
    frames = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 2, 16, 8, 3)
    video = frames_to_video(frames)
    assert video.shape == (1, 3, 2, 16, 8)
    assert (video.min(), video.max()) == (-1, 1)
    assert torch.equal(video[0, 1, 0], frames[0, 0, :, :, 1] / 127.5 - 1)
    back = video_to_frames(video)
    assert back.is_contiguous()
    assert torch.equal(back, frames)


@settings(max_examples=50, deadline=None)
@given(st.floats(-3, 3, width=32))
def test_pixels_are_rounded_and_clamped(value: float) -> None:
    got = video_to_frames(torch.full((1, 3, 1, 1, 1), value))
    want = min(max((value + 1) * 127.5, 0), 255)
    assert (got.float() - want).abs().max() <= 0.5 + 1e-4


@pytest.mark.parametrize(
    "frames",
    [
        torch.zeros(1, 2, 4, 4, 3),
        torch.zeros(2, 4, 4, 3, dtype=torch.uint8),
        torch.zeros(1, 3, 2, 4, 4, dtype=torch.uint8),
    ],
)
def test_frames_of_the_wrong_kind_are_refused(frames: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"must be torch.uint8 of shape \(N, T, H, W, 3\)"):
        frames_to_video(frames)
