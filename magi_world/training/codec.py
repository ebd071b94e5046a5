"""Training the autoencoder: pixel and gradient loss, then the decoder alone behind noise.

Legend: N chunks, T frames, H W pixels, C latent channels.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from magi_world.config import VAEConfig
from magi_world.io.weights import save_tensors
from magi_world.model.vae import VAE, frames_to_video, video_to_frames
from magi_world.training.codec_start import equalise, keep_blind, start_from_pca
from magi_world.training.dataset import ChunkDataset
from magi_world.training.files import CODEC
from magi_world.training.loop import LoopConfig, train
from magi_world.training.precision import mixed


@dataclass(frozen=True)
class CodecConfig:
    """The autoencoder's sizes, its optimisation and the weights of its loss.

    rare: extra weight of a pixel that differs from the data set's mean picture by the whole range;
    moving: extra weight of one that changes by the whole range between frames; size: weight of the
    latents' square; decoder, noise: the last stage, which trains the decoder alone behind latents
    with up to this share of noise; autocast: compute in bfloat16, None = where that is faster.
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
    autocast: bool | None = None
    compile: bool = True


def gradients(x: Tensor) -> list[Tensor]:
    """Differences between neighbours in width, height and time of (N, 3, T, H, W)."""
    return [x.diff(dim=axis) for axis in (4, 3, 2)]


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
        made = video_to_frames(model.decode(model.encode(frames_to_video(frames))))
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
        model.load_state_dict(load_file(finished))
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
        with (
            torch.autocast(device.type, torch.bfloat16, enabled=mixed(config.autocast, device)),
            training_attention(device),
        ):
            return compiled(x), {}

    train("codec", model, loss, config.loop, folder, probe=probe(held_out))
    with training_attention(device):
        equalise(model, video[:48].to(device))
    save_tensors(finished, model.state_dict())
    return model


def train_decoder(
    config: CodecConfig,
    model: VAE,
    data: ChunkDataset,
    held_out: ChunkDataset,
    folder: Path,
    device: torch.device,
) -> VAE:
    """Go on with the decoder alone, on slightly noised latents: dreams are never quite clean.

    The latents stay as they are, so that this can run after, or beside, the transformer.
    Resumes from ``folder/decoder.ckpt``.

    Raises:
        Stopped: asked to stop; run again to go on.
    """
    mean = mean_picture(data)[1].to(device)
    model.encoder.requires_grad_(False)
    model.decoder.requires_grad_(True)
    keep_blind(model)

    def objective(x: Tensor, z: Tensor) -> Tensor:
        return codec_loss(model.decoder(z).float(), x, mean, config)

    compiled = torch.compile(objective) if config.compile else objective

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x = draw_video(data, config.decoder.batch, generator, device)
        with (
            torch.autocast(device.type, torch.bfloat16, enabled=mixed(config.autocast, device)),
            training_attention(device),
        ):
            with torch.no_grad():
                z = model.encode(x).float()
                share = torch.rand(len(z), 1, 1, 1, 1, generator=generator) * config.noise
                noise = torch.randn(z.shape, generator=generator)
                z = z * (1 - share.to(device)) + noise.to(device) * share.to(device)
            return compiled(x, z), {}

    train("decoder", model, loss, config.decoder, folder, probe=probe(held_out))
    return model


def probe(held_out: ChunkDataset) -> Callable[[nn.Module], dict[str, float]]:
    """PSNR on 128 held-out chunks, for the log."""
    rows = torch.arange(0, len(held_out), max(1, len(held_out) // 128))

    def measure(model: nn.Module) -> dict[str, float]:
        assert isinstance(model, VAE)
        with training_attention(next(model.parameters()).device):
            return {"psnr": psnr(model, held_out, rows)}

    return measure


def training_attention(device: torch.device) -> AbstractContextManager[None]:
    """Attention kernels for training: on a CPU the plain formula is several times faster than the
    fused kernel, forward and backward, for a few hundred tokens."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
