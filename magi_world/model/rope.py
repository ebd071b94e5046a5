"""Rotary positions in time, height and width (reference section 3).

Shapes: B worlds, N chunks, W latent frames a chunk, S = W*h*w tokens a chunk, K = head_dim / 8
learned bands. The first 6K dims of a head are rotated as two halves of 3K, the rest is not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Rope(nn.Module):
    """Learned bands; sines and cosines of (t, h, w) times each band."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        count = head_dim // 8
        self.bands = nn.Parameter(10000 ** -(torch.arange(count) / count))

    def forward(self, frames: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Sine and cosine, each (B, N, S, 1, 3K) float32, for tokens in (t, h, w) order.

        Args:
            frames: (B, N, W) int64, latent frame index from the start of the video.
            height, width: token grid of one latent frame.

        The angle of a frame index is formed in float64: in float32 a stream of a few days would
        lose the phase (index * band needs about 30 bits there).
        """
        b, n, w = frames.shape
        bands = self.bands.double()
        time = (frames.double()[..., None] * bands)[:, :, :, None, None]
        rows, cols = (
            (p.double()[:, None] * bands) for p in centred_grid(height, width, frames.device)
        )
        shape = (b, n, w, height, width, len(bands))
        angle = torch.cat(
            [
                time.expand(shape),
                rows[:, None].expand(shape),
                cols[None].expand(shape),
            ],
            dim=-1,
        ).reshape(b, n, w * height * width, 1, 3 * len(bands))
        return angle.sin().float(), angle.cos().float()


def centred_grid(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column positions, centred and stretched to span those of an area-256 grid."""
    r = (height * width / 256) ** 0.5

    def axis(n: int) -> Tensor:
        p = torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2
        return p if n == 1 else p * ((n / r - 1) / (n - 1))

    return axis(height), axis(width)


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate x (B, N, S, H, head_dim); the result has x's dtype."""
    sin, cos = rope
    k = sin.shape[-1]
    x1, x2, rest = x[..., :k], x[..., k : 2 * k], x[..., 2 * k :]
    return torch.cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin, rest], dim=-1).to(x.dtype)
