"""MAGI-1's ViT autoencoder (reference section 5): video to latents and back.

Shape legend
    N  batch              T, H, W     video frames, height, width in pixels
    C  latent channels    t, h, w     the same after patching: T / 4, H / 8, W / 8 as released
    D  width              S           tokens of one clip: class token + t * h * w
    A  heads              hd          head dimension, D / A

    frames   (N, T, H, W, 3)  uint8
    video    (N, 3, T, H, W)  float, [-1, 1]
    latents  (N, C, t, h, w)  float

A clip is seen whole: every token attends to every other. Nothing here is causal, so a clip is
decoded together or, if large, in the tiles of :mod:`magi_world.model.tiling`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magi_world.config import VAEConfig, require
from magi_world.model.attention import attention

QKV_EPS = 1e-5  # added to the standard deviation, not to the variance
GRIDS_KEPT = 16  # sizes of clips whose positions are kept
PROJECTED_CHANNELS = 4  # channels folded out of a token where there is a final_proj


def normalise_heads(x: Tensor) -> Tensor:
    """(x - mean) / (std + 1e-5) over the last axis, population std, computed in float32."""
    centred = x.float()
    centred = centred - centred.mean(-1, keepdim=True)
    # A vector norm is one kernel and, unlike a square root, has a gradient at zero.
    std = torch.linalg.vector_norm(centred, dim=-1, keepdim=True) * x.shape[-1] ** -0.5
    return (centred * (std + QKV_EPS).reciprocal()).to(x.dtype)


def exact_convolutions(x: Tensor) -> AbstractContextManager[None]:
    """Convolutions of float32 in float32: on a GPU cuDNN would round to 10 bits (TF32)."""
    if not x.is_cuda:
        return nullcontext()
    on = torch.backends.cudnn.enabled
    return torch.backends.cudnn.flags(enabled=on, allow_tf32=False)


class Attention(nn.Module):
    """Self-attention over all tokens of a clip; queries, keys and values are normalised."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.qkv_bias)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        n, s, width = x.shape
        qkv = self.qkv(x).view(n, s, 3, self.heads, width // self.heads)
        q, k, v = normalise_heads(qkv).unbind(2)
        return self.proj(attention(q, k, v).reshape(n, s, width))


class MLP(nn.Module):
    """Linear, GELU (erf), linear."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        hidden = int(config.width * config.mlp_ratio)
        self.fc1 = nn.Linear(config.width, hidden)
        self.fc2 = nn.Linear(hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A transformer block without a norm before its attention."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.width)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.mlp(self.norm2(x))


class _Transformer(nn.Module):
    """What encoder and decoder share: class token, learned positions, blocks, norm."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        side = config.video_size // config.patch_size
        self.config = config
        self.grid = (config.video_length // config.patch_length, side, side)
        tokens = self.grid[0] * side * side
        self._resized: dict[tuple[object, ...], Tensor] = {}
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + tokens, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)

    def positions(self, t: int, h: int, w: int) -> Tensor:
        """Learned positions (1, 1 + t*h*w, D), the class token's first.

        At the trained size this is the parameter itself. At others the grid is resized
        trilinearly (align_corners false) and the class position is kept.
        """
        if (t, h, w) == self.grid:
            return self.pos_embed
        weight = self.pos_embed
        if weight.requires_grad or weight.is_inference():  # it may change, and nobody would know
            return self._resize(t, h, w)
        key = (t, h, w, weight.device, weight.dtype, weight._version)
        if key not in self._resized:
            if len(self._resized) >= GRIDS_KEPT:
                self._resized.clear()
            self._resized[key] = self._resize(t, h, w)
        return self._resized[key]

    def _resize(self, t: int, h: int, w: int) -> Tensor:
        first, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        # float32: a table in bf16 would be rounded at every step of the interpolation.
        table = grid.float().transpose(1, 2).unflatten(2, self.grid)
        table = F.interpolate(table, size=(t, h, w), mode="trilinear", align_corners=False)
        return torch.cat([first, table.flatten(2).transpose(1, 2).to(first.dtype)], dim=1)

    def transform(self, x: Tensor, t: int, h: int, w: int) -> Tensor:
        """Patch tokens (N, t*h*w, D) -> the same through all blocks and the norm."""
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = x + self.positions(t, h, w)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1:]


class PatchEmbed(nn.Module):
    """Video to one token a patch: (N, 3, T, H, W) -> (N, D, t, h, w)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        patch = (config.patch_length, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(3, config.width, kernel_size=patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        with exact_convolutions(x):
            return self.proj(x)


class Encoder(_Transformer):
    """Video (N, 3, T, H, W) -> mean and log variance of the latents, (N, C, t, h, w) each."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__(config)
        self.patch_embed = PatchEmbed(config)
        self.last_layer = nn.Linear(config.width, 2 * config.latent_channels)

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        check_video(video, self.config)
        x = self.patch_embed(video.to(self.pos_embed.dtype))
        t, h, w = x.shape[2:]
        x = self.last_layer(self.transform(x.flatten(2).transpose(1, 2), t, h, w))
        mean, logvar = x.transpose(1, 2).unflatten(2, (t, h, w)).chunk(2, dim=1)
        return mean, logvar


class Decoder(_Transformer):
    """Latents (N, C, t, h, w) -> video (N, 3, T, H, W), all frames of every latent."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__(config)
        pixels = config.patch_length * config.patch_size**2
        folded = PROJECTED_CHANNELS * pixels if config.final_proj else config.width
        self.proj_in = nn.Linear(config.latent_channels, config.width)
        if config.final_proj:
            self.final_proj = nn.Linear(config.width, folded)
            self.final_norm = nn.LayerNorm(folded)
        self.last_layer = nn.Conv3d(folded // pixels, 3, kernel_size=3, padding=1)
        self.direct = False  # on a CPU: the last layer by oneDNN, all clips at once

    def forward(self, latents: Tensor) -> Tensor:
        check_latents(latents, self.config)
        t, h, w = latents.shape[2:]
        x = self.proj_in(latents.to(self.pos_embed.dtype).flatten(2).transpose(1, 2))
        x = self.transform(x, t, h, w)
        if self.config.final_proj:
            x = self.final_norm(self.final_proj(x))
        pt, ps = self.config.patch_length, self.config.patch_size
        x = x.view(x.shape[0], t, h, w, pt, ps, ps, -1).permute(0, 7, 1, 4, 2, 5, 3, 6)
        x = x.reshape(x.shape[0], -1, t * pt, h * ps, w * ps)
        return self.last(x)

    def last(self, x: Tensor) -> Tensor:
        """The last layer: (N, 3 or more, T, H, W) -> (N, 3, T, H, W)."""
        if x.is_cuda or torch.is_grad_enabled():
            with exact_convolutions(x):
                return self.last_layer(x)
        if self.direct:
            weight, bias, one = self.last_layer.weight, self.last_layer.bias, (1, 1, 1)
            return torch.mkldnn_convolution(x, weight, bias, one, one, one, 1)
        # torch takes another kernel with the number of clips, which rounds differently; one at a
        # time, a clip gets the same pixels in any company.
        return torch.cat([self.last_layer(clip) for clip in x.split(1)])


class VAE(nn.Module):
    """MAGI-1's autoencoder; parameter names are those of the released checkpoint.

    Inputs of any floating dtype are converted to that of the weights, which the output has too.
    Latents here are unscaled; :meth:`scale` gives what the diffusion transformer works on.

    Args:
        config: sizes of the model.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.apply(_initialise)

    def encode(self, video: Tensor) -> Tensor:
        """Mean of the latents of a clip or an image.

        Args:
            video: float (N, 3, T, H, W) in [-1, 1]; T is divisible by ``patch_length``, or 1: an
                image, repeated to ``patch_length`` frames. H and W divide by ``patch_size``.

        Returns:
            Unscaled latents (N, C, T / patch_length, H / patch_size, W / patch_size); one latent
            frame for an image.

        Raises:
            ValueError: wrong shape or dtype.
        """
        check_video(video, self.config, image_allowed=True)
        if video.shape[2] == 1:
            video = video.expand(-1, -1, self.config.patch_length, -1, -1)
        return self.encoder(video)[0]

    def decode(self, latents: Tensor, first_frame_only: bool | None = None) -> Tensor:
        """Video of unscaled latents.

        Args:
            latents: float (N, C, t, h, w).
            first_frame_only: keep only the first video frame of the clip. ``None`` is the released
                rule: one latent frame is an image, several are video. A stream whose chunks may
                be one latent long passes ``False``, so that every latent gives ``patch_length``
                frames; ``True`` shows the image that a longer clip begins with.

        Returns:
            Video (N, 3, T, H, W) in about [-1, 1], T = t * patch_length or 1.

        Raises:
            ValueError: wrong shape or dtype.
        """
        video = self.decoder(latents)
        if latents.shape[2] == 1 if first_frame_only is None else first_frame_only:
            return video[:, :, :1]
        return video

    def scale(self, latents: Tensor) -> Tensor:
        """Latents as encoded -> latents as the diffusion transformer works on them."""
        return latents * self.config.scale_factor

    def unscale(self, latents: Tensor) -> Tensor:
        """Latents of the diffusion transformer -> latents to decode; inverse of :meth:`scale`."""
        return latents / self.config.scale_factor


def _initialise(module: nn.Module) -> None:
    """Start of training: ViT's usual normal(0.02), zero biases; the convolutions as torch does."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, _Transformer):
        nn.init.trunc_normal_(module.cls_token, std=0.02)
        nn.init.trunc_normal_(module.pos_embed, std=0.02)


def check_video(video: Tensor, config: VAEConfig, image_allowed: bool = False) -> None:
    """Raise ValueError unless ``video`` is float (N, 3, T, H, W) of a size that can be encoded."""
    _check_clip("video", video, 3)
    frames, height, width = video.shape[2:]
    if not (image_allowed and frames == 1):
        also = ", or 1 for an image" if image_allowed else ""
        _check_divides("frames", frames, config.patch_length, also)
    _check_divides("height", height, config.patch_size)
    _check_divides("width", width, config.patch_size)


def check_latents(latents: Tensor, config: VAEConfig) -> None:
    """Raise ValueError unless ``latents`` is float (N, C, t, h, w) with the model's channels."""
    _check_clip("latents", latents, config.latent_channels)


def _check_clip(name: str, clip: Tensor, channels: int) -> None:
    shape = tuple(clip.shape)
    hint = " (frames_to_video converts uint8 frames)" if name == "video" else ""
    require(
        clip.is_floating_point(),
        f"{name} has dtype {clip.dtype}; it must be floating point{hint}",
    )
    require(
        len(shape) == 5 and shape[1] == channels and all(shape),
        f"{name} has shape {shape}; it must be (N, {channels}, T, H, W) with no empty axis",
    )


def _check_divides(name: str, size: int, unit: int, also: str = "") -> None:
    low, high = size // unit * unit, -(-size // unit) * unit
    require(
        size % unit == 0,
        f"video {name} is {size}; it must be divisible by {unit} "
        f"(nearest: {f'{low} or {high}' if low else high}){also}",
    )


def frames_to_video(frames: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 frames (N, T, H, W, 3) -> float video (N, 3, T, H, W) in [-1, 1], x / 127.5 - 1.

    Raises:
        ValueError: wrong shape or dtype.
    """
    require(
        frames.dim() == 5 and frames.shape[-1] == 3 and frames.dtype == torch.uint8,
        f"frames are {frames.dtype} of shape {tuple(frames.shape)}; they must be torch.uint8 of "
        "shape (N, T, H, W, 3)",
    )
    return (frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1).to(dtype)


def video_to_frames(video: Tensor) -> Tensor:
    """Float video (N, 3, T, H, W) -> uint8 frames (N, T, H, W, 3), rounded and clamped.

    Raises:
        ValueError: wrong shape or dtype.
    """
    _check_clip("video", video, 3)
    pixels = ((video.float() + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 4, 1).contiguous()
