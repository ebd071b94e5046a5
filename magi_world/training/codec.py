"""The autoencoder: a start from PCA, pixel and gradient loss.

The PCA start puts the best linear code of the patches into the network before the first step:
the patch embedding projects onto the components, the latent head passes the first C of them
through, and the decoder's output projection puts them back; every block starts as the identity.
LayerNorms in between would rescale each token by its own contrast, so some channels carry large
constants: they fix the token's standard deviation, and the norms become linear. Nothing but the
norms may read these channels, or they would drown the signal: norm weights are zero there, and the
attention, which reads the stream without a norm, is kept blind to them (`keep_blind`). bfloat16,
which knows no number between 1000 and 1004, would lose half of the picture: all is float32.

Legend: N chunks, T frames, H W pixels, C latent channels, D width, P = 3 * 4 * 8 * 8 patch values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from magi_world.config import VAEConfig
from magi_world.io.safetensors_io import load_tensors, save_tensors
from magi_world.model.vae import PROJECTED_CHANNELS, VAE, frames_to_video, video_to_frames
from magi_world.training.data import ChunkDataset
from magi_world.training.loop import LoopConfig, train, training_attention

CODEC = "codec.safetensors"  # the finished autoencoder


CONSTANTS = 2  # channels that carry the constants: few, so that few weights hang on them
CONSTANT = 1000.0  # their size, against a unit-variance signal: its own size no longer matters


def patches(video: Tensor, config: VAEConfig) -> Tensor:
    """(N, 3, T, H, W) -> (rows, P) in the order of the patch embedding's weight."""
    p, s = config.patch_length, config.patch_size
    x = video.unfold(2, p, p).unfold(3, s, s).unfold(4, s, s)
    return x.permute(0, 2, 3, 4, 1, 5, 6, 7).reshape(-1, 3 * p * s * s)


@torch.no_grad()
def start_from_pca(model: VAE, video: Tensor) -> float:
    """Put the linear code of ``video``'s patches into ``model``; returns its PSNR in dB."""
    cfg = model.config
    if not cfg.final_proj:
        raise ValueError("VAEConfig.final_proj is False; the PCA start needs a final_proj")
    rows = patches(video, cfg).double()
    mean = rows.mean(0)
    values, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    values, vectors = values.flip(0).clamp_min(1e-9), vectors.flip(1)
    c, d = cfg.latent_channels, cfg.width
    used = d - CONSTANTS
    scale = values.sqrt()
    scale[c:] = scale[c - 1]  # what is not coded enters small, as it is
    basis = vectors[:, :used]
    signs = torch.tensor([1.0, -1.0]).repeat(CONSTANTS // 2)

    for block in [*model.encoder.blocks, *model.decoder.blocks]:
        nn.init.zeros_(block.attn.proj.weight)
        nn.init.zeros_(block.mlp.fc2.weight)
        nn.init.orthogonal_(block.attn.qkv.weight)
        nn.init.orthogonal_(block.mlp.fc1.weight)
        block.attn.qkv.weight[:, used:] = 0
        block.norm2.weight[:used] = CONSTANT * (CONSTANTS / d) ** 0.5
        block.norm2.weight[used:] = 0

    encoder = model.encoder
    embed = encoder.patch_embed.proj
    shift = embed.bias
    assert shift is not None
    embed.weight.zero_()
    shift.zero_()
    project = (basis / scale[:used]).T
    embed.weight[:used] = project.reshape(used, *embed.weight.shape[1:]).float()
    shift[:used] = -(project @ mean).float()
    # The norms subtract a token's mean: the constants take it to zero, so that nothing is lost.
    embed.weight[used:] = -embed.weight[:used].sum(0) / CONSTANTS
    shift[used:] = signs * CONSTANT - shift[:used].sum() / CONSTANTS
    x = encoder.patch_embed(video[:64]).flatten(2).transpose(1, 2)
    spread = x.var(-1, correction=0).mean().sqrt()
    middle = x.mean(-1).mean()
    encoder.last_layer.weight[:] *= 0.01
    encoder.last_layer.bias.zero_()
    encoder.last_layer.weight[:c].zero_()
    encoder.norm.weight[:used] = spread
    encoder.norm.weight[used:] = 0
    encoder.norm.bias[:used] = middle
    encoder.last_layer.weight[:c, :c] = torch.eye(c)

    decoder = model.decoder
    decoder.proj_in.weight.zero_()
    decoder.proj_in.bias.zero_()
    decoder.proj_in.weight[:c, :c] = torch.eye(c)
    free = torch.randn(used - c, c, generator=torch.Generator().manual_seed(0)) * c**-0.5
    decoder.proj_in.weight[c:used] = free
    decoder.proj_in.weight[used:] = -decoder.proj_in.weight[:used].sum(0) / CONSTANTS
    decoder.proj_in.bias[used:] = signs * CONSTANT
    z = decoder.proj_in(model.encode(video[:64]).flatten(2).transpose(1, 2))
    spread = z.var(-1, correction=0).mean().sqrt()
    decoder.norm.bias[:used] = z.mean(-1).mean()

    pixels = cfg.patch_length * cfg.patch_size**2
    decoder.norm.weight[:used] = spread
    decoder.norm.weight[used:] = 0
    back = (vectors[:, :c] * values[:c].sqrt()).float()  # (P, C), P is (3, pixels)
    decoder.final_proj.weight.zero_()
    decoder.final_proj.bias.zero_()
    out = decoder.final_proj.weight.view(pixels, PROJECTED_CHANNELS, d)
    bias = decoder.final_proj.bias.view(pixels, PROJECTED_CHANNELS)
    out[:, :3, :c] = back.view(3, pixels, c).transpose(0, 1)
    bias[:, :3] = mean.float().view(3, pixels).T
    # The fourth channel takes the token's mean to zero (the norm would subtract it) and holds
    # the constants.
    out[:, 3] = -out[:, :3].sum(1)
    bias[:, 3] = -bias[:, :3].sum(1) + CONSTANT * torch.tensor([1.0, -1.0]).repeat(pixels // 2)
    y = decoder.final_proj(decoder.norm(z))
    decoder.final_norm.weight.fill_(float(y.var(-1, correction=0).mean().sqrt()))
    decoder.final_norm.bias.fill_(float(y.mean()))
    decoder.final_norm.weight.view(pixels, PROJECTED_CHANNELS)[:, 3] = 0
    last = decoder.last_layer
    last.weight.mul_(0.002)
    last.weight[:, 3] = 0
    assert last.bias is not None
    last.bias.zero_()
    last.weight[:, :, 1, 1, 1] = torch.eye(3, PROJECTED_CHANNELS)
    lost = float(values[c:].sum() / len(values))
    return float(10 * torch.log10(torch.tensor(4.0 / lost)))


def keep_blind(model: VAE) -> None:
    """Keep the columns that read the constants at zero while the model is trained."""
    for block in [*model.encoder.blocks, *model.decoder.blocks]:
        weight = block.attn.qkv.weight
        if not weight.requires_grad:
            continue
        mask = torch.ones_like(weight)
        mask[:, -CONSTANTS:] = 0
        weight.register_hook(lambda grad, mask=mask: grad * mask)


@torch.no_grad()
def equalise(model: VAE, video: Tensor) -> Tensor:
    """Fold a per-channel scale and shift into the weights: latents get mean 0, and a spread that
    follows their weight in the picture. Returns the spreads (C,), quadratic mean 1.

    A channel's spread is the fourth root of the mean squared pixel change that one of its standard
    deviations makes: between whitening (a speck of floor counts as much as the horizon) and pixel
    units (the specks never get out of the noise).
    """
    z = model.encode(video)
    std, mean = torch.std_mean(z, dim=(0, 2, 3, 4))
    made = model.decode(z, first_frame_only=False)  # a clip of one latent is video here
    felt = []
    for c in range(len(std)):
        moved = z.clone()
        moved[:, c] += 0.5 * std[c] * torch.randn(z[:, c].shape, generator=step_noise(c)).to(z)
        felt.append((model.decode(moved, False) - made).square().mean())
    spread = torch.stack(felt) ** 0.25
    spread = spread / spread.square().mean().sqrt()
    factor = spread / std
    head, back = model.encoder.last_layer, model.decoder.proj_in
    c = len(std)
    head.weight[:c] *= factor[:, None]
    head.bias[:c] = (head.bias[:c] - mean) * factor
    back.bias.add_(back.weight @ mean)
    back.weight /= factor
    return spread


def step_noise(seed: int) -> torch.Generator:
    """A CPU generator for one channel's probe."""
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class CodecConfig:
    """The autoencoder's sizes, its optimisation and the weights of its loss.

    rare: extra weight of a pixel that differs from the data set's mean picture by the whole range;
    moving: extra weight of one that changes by the whole range between frames; size: weight of the
    latents' square; decoder, noise, foreseen, adversarial: the last stage, which trains the decoder
    alone (`magi_world.training.decoder`): its optimisation, most noise mixed into latents, the
    share of steps on latents that the transformer expected, and how hard a discriminator pulls
    beside the other losses (0: there is none).
    """

    vae: VAEConfig
    loop: LoopConfig
    decoder: LoopConfig
    l2: float = 10.0
    l1: float = 1.0
    gradient: float = 0.5
    rare: float = 4.0
    moving: float = 4.0
    size: float = 1e-4
    noise: float = 0.05
    foreseen: float = 0.0
    adversarial: float = 0.0
    compile: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.foreseen <= 1:
            raise ValueError(
                f"codec.foreseen is {self.foreseen}; it must be a share of the steps, 0 to 1"
            )
        if self.adversarial < 0:
            raise ValueError(f"codec.adversarial is {self.adversarial}; it must not be negative")


def gradients(x: Tensor) -> list[Tensor]:
    """Differences between neighbours in width, height and time, where there are any, of (N, 3, T,
    H, W)."""
    return [x.diff(dim=axis) for axis in (4, 3, 2) if x.shape[axis] > 1]


def codec_loss(made: Tensor, video: Tensor, mean: Tensor, config: CodecConfig) -> Tensor:
    """Weighted L2 + L1 + gradient L1; ``mean`` is the data's mean picture (3, 1, H, W)."""
    weight = 1 + config.rare / 2 * (video - mean).abs().mean(1, keepdim=True)
    change = F.pad(video.diff(dim=2), (0, 0, 0, 0, 1, 0)).abs().mean(1, keepdim=True)
    weight = weight + config.moving / 2 * change
    weight = weight / weight.mean()
    error = made - video
    total = config.l2 * (weight * error.square()).mean() + config.l1 * (weight * error.abs()).mean()
    edges = [(a - b).abs().mean() for a, b in zip(gradients(made), gradients(video), strict=True)]
    return total + config.gradient * torch.stack(edges).sum()


@torch.no_grad()
def psnr(model: VAE, data: ChunkDataset, rows: Tensor, batch: int = 64) -> float:
    """Reconstruction PSNR in dB of uint8 frames, from the mean squared error over all rows."""
    device = next(model.parameters()).device
    total = 0.0
    for part in rows.split(batch):
        frames = data.pixels(part).to(device)
        made = video_to_frames(model.decode(model.encode(frames_to_video(frames)), False))
        total += float((made.float() - frames.float()).square().mean()) * len(part)
    return float(10 * torch.log10(torch.tensor(255.0**2 / (total / len(rows)))))


def mean_picture(data: ChunkDataset, count: int = 1024) -> tuple[Tensor, Tensor]:
    """A sample of videos (count, 3, T, H, W) and their mean (3, 1, H, W)."""
    pick = torch.Generator().manual_seed(1)
    rows = torch.randint(len(data), (count,), generator=pick)
    video = frames_to_video(data.pixels(rows, data.sides(count, pick).bool()))
    return video, video.mean(dim=(0, 2)).unsqueeze(1)


def draw_video(
    data: ChunkDataset, count: int, generator: torch.Generator, device: torch.device
) -> Tensor:
    """``count`` random chunks (count, 3, T, H, W), as recorded or mirrored."""
    rows = torch.randint(len(data), (count,), generator=generator)
    return frames_to_video(data.pixels(rows, data.sides(count, generator).bool()).to(device))


def train_codec(
    config: CodecConfig,
    data: ChunkDataset,
    held_out: ChunkDataset,
    folder: Path,
    device: torch.device,
) -> VAE:
    """Train the autoencoder, resuming from ``folder/codec.ckpt``; latents come out equalised.

    The finished weights are kept in ``folder/codec.safetensors`` and are read from there next time.

    Raises:
        Stopped: asked to stop; run again to go on.
        ValueError: ``scale_factor`` is not 1.
    """
    if config.vae.scale_factor != 1.0:
        raise ValueError(
            f"CodecConfig.vae.scale_factor is {config.vae.scale_factor}; latents are equalised in "
            "the weights, so it must be 1.0"
        )
    torch.manual_seed(config.loop.seed)
    model, finished = VAE(config.vae), folder / CODEC
    if finished.exists():
        model.load_state_dict(load_tensors(finished))
        return model.to(device)
    video, mean = mean_picture(data)
    bound = start_from_pca(model, video)
    tqdm.write(f"best linear code of {config.vae.latent_channels} numbers: {bound:.2f} dB")
    model.to(device)
    keep_blind(model)
    mean = mean.to(device)

    def objective(x: Tensor) -> Tensor:
        z, _ = model.encoder(x)
        made = model.decoder(z).float()
        return codec_loss(made, x, mean, config) + config.size * z.float().square().mean()

    compiled = torch.compile(objective) if config.compile else objective

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x = draw_video(data, config.loop.batch, generator, device)
        with training_attention(device):
            return compiled(x), {}

    train("codec", model, loss, config.loop, folder, probe=probe(held_out))
    with training_attention(device):
        equalise(model, video[:48].to(device))
    save_tensors(finished, model.state_dict())
    return model


def probe(held_out: ChunkDataset) -> Callable[[nn.Module], dict[str, float]]:
    """PSNR on 128 held-out chunks, for the log."""
    rows = torch.arange(0, len(held_out), max(1, len(held_out) // 128))

    def measure(model: nn.Module) -> dict[str, float]:
        assert isinstance(model, VAE)
        with training_attention(next(model.parameters()).device):
            return {"psnr": psnr(model, held_out, rows)}

    return measure
