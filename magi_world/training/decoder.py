"""The decoder alone, after the transformer: on latents of dreams, against a discriminator.

A dream's latents are the mean of what may come, and so is a picture that is decoded with as little
error as can be: soft. A discriminator that tells real patches from made ones pulls towards what
real pictures look like (arXiv 2012.09841, section 3.1, with its adaptive weight).

Legend: N chunks, T frames, H W pixels, h w patches that are judged.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from magi_world.model.vae import VAE, frames_to_video
from magi_world.training.codec import (
    CodecConfig,
    codec_loss,
    draw_video,
    keep_blind,
    mean_picture,
    probe,
)
from magi_world.training.data import ChunkDataset
from magi_world.training.loop import train, training_attention

RISE = 0.2  # share of the steps in which the discriminator's pull grows to its full size
WIDTH = 32  # channels of the discriminator's first layer

Foresight = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


class PatchDiscriminator(nn.Module):
    """Is a patch of two frames in a row real? Two, so that what flickers is found, too."""

    def __init__(self) -> None:
        super().__init__()
        widths = (6, WIDTH, 2 * WIDTH, 4 * WIDTH)
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise(widths)):
            stride = 2 if i < 2 else 1
            layers += [spectral_norm(nn.Conv2d(a, b, 4, stride, 1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(widths[-1], 1, 3, 1, 1)))

    def forward(self, video: Tensor) -> Tensor:
        """(N, 3, T, H, W) -> scores (pairs, 1, h, w), large where it looks real."""
        later = video[:, :, 1:] if video.shape[2] > 1 else video
        pairs = torch.cat([video[:, :, : later.shape[2]], later], dim=1)
        return self.layers(pairs.transpose(1, 2).flatten(0, 1))


class Rivals(nn.Module):
    """A decoder and who judges it, trained at once."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae
        self.judge = PatchDiscriminator()

    def losses(self, made: Tensor, video: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        """What the decoder loses to the judge, as heavy as ``error`` is, and the judge's own loss.

        Args:
            made, video: (N, 3, T, H, W), decoded and real.
            error: the decoder's other loss, of the same pass.
        """
        self.judge.requires_grad_(False)  # the decoder's part shall not move the judge
        found = -self.judge(made).mean()
        self.judge.requires_grad_(True)
        last = self.vae.decoder.last_layer.weight
        by_error, by_judge = (
            torch.autograd.grad(part, last, retain_graph=True)[0].norm() for part in (error, found)
        )
        found = found * (by_error / (by_judge + 1e-6)).clamp(max=1e4).detach()
        judged = F.relu(1 - self.judge(video)).mean() + F.relu(1 + self.judge(made.detach())).mean()
        return found, judged


def train_decoder(
    config: CodecConfig,
    model: VAE,
    data: ChunkDataset,
    held_out: ChunkDataset,
    folder: Path,
    device: torch.device,
    foresee: Foresight | None = None,
) -> VAE:
    """Go on with the decoder alone, on slightly noised latents: dreams are never quite clean.

    The latents stay as they are, so that this can run after, or beside, the transformer.
    Resumes from ``folder/decoder.ckpt``.

    Args:
        foresee: a number of chunks, a generator -> frames that came (n, T, H, W, 3) and the
            latents that the transformer expected (`magi_world.training.dynamics.foreseen`); needed
            where ``config.foreseen`` is not 0.

    Raises:
        Stopped: asked to stop; run again to go on.
        ValueError: ``config.foreseen`` is not 0, and there is no ``foresee``.
    """
    if config.foreseen and foresee is None:
        raise ValueError(f"codec.foreseen is {config.foreseen}; it needs a transformer's `foresee`")
    mean = mean_picture(data)[1].to(device)
    model.encoder.requires_grad_(False)
    model.decoder.requires_grad_(True)
    keep_blind(model)
    torch.manual_seed(config.decoder.seed)
    rivals = Rivals(model).to(device) if config.adversarial else None
    rise = max(1.0, RISE * config.decoder.steps)

    def noised(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = draw_video(data, config.decoder.batch, generator, device)
        z = model.encode(x)
        share = torch.rand(len(z), 1, 1, 1, 1, generator=generator) * config.noise
        noise = torch.randn(z.shape, generator=generator)
        return x, z * (1 - share.to(device)) + noise.to(device) * share.to(device)

    @torch.no_grad()
    def pairs(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if foresee is None or float(torch.rand((), generator=generator)) >= config.foreseen:
            return noised(generator)
        frames, latents = foresee(config.decoder.batch, generator)
        return frames_to_video(frames.to(device)), model.unscale(latents.to(device))

    decode = torch.compile(model.decoder) if config.compile else model.decoder

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        with training_attention(device):
            x, z = pairs(generator)
            made = decode(z).float()
            error = codec_loss(made, x, mean, config)
            if rivals is None:
                return error, {}
            found, judged = rivals.losses(made, x, error)
        pull = config.adversarial * min(1.0, step / rise)
        return error + pull * found + judged, {"error": error.item(), "judge": judged.item()}

    measure = probe(held_out)
    train("decoder", rivals or model, loss, config.decoder, folder, probe=lambda _: measure(model))
    return model
