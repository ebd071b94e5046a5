"""The diffusion transformer of MAGI-1: noisy chunks in, flow velocity out (reference section 3).

Shapes, used throughout:
    B   worlds in the batch          N   chunks of one forward        W  latent frames a chunk
    h,w patches of a latent frame    S   tokens of a chunk = W*h*w    L  rows of a caption
    D   hidden size                  Hq  query heads                  Hkv  key/value groups
    hd  head dim                     C   latent channels              p  spatial patch
    Cc  channels of a caption feature
Latents are (B, N, C, W, h*p, w*p); tokens are (B, N, S, D) in (t, h, w) order.

The transformer does not know which keys a chunk may see: that is decided by the two callables it
is given, one for self-attention (the rolling cache of `magi_world.sampling`, or a training mask)
and one for the text.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magi_world.config import DiTConfig
from magi_world.model.layers import (
    AdaGate,
    Attention,
    CaptionEmbedder,
    FeedForward,
    LayerNorm1p,
    Rope,
    TimeEmbedder,
    full_width,
)

NULL_CAPTION_ROWS = 50
LEAST_NOISE = 0.05  # a clean prediction is divided by the noise's share, but never by less


def velocity_to(clean: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """Velocity that leads from ``x`` (B, N, ...) at times t (B or 1, N) to ``clean``."""
    left = (1 - t).clamp_min(LEAST_NOISE)
    return (clean - x) / left[..., None, None, None, None]


T = TypeVar("T")
Gates = list[tuple[Tensor, Tensor]]  # those of every block, each (B or 1, N, 1, D)


class Memo:
    """Results that are made once, by key; of more than ``most`` the one unused for longest goes."""

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self._known: dict[Hashable, tuple[Any, Any]] = {}

    def get(self, key: Hashable, make: Callable[[], T], alive: object = None) -> T:
        """What ``make`` gave when it was first asked for; ``alive`` is kept with it, so that no
        other object gets its id."""
        entry = self._known.pop(key, None) or (make(), alive)
        self._known[key] = entry  # the newest is the last
        if self.most is not None and len(self._known) > self.most:
            del self._known[next(iter(self._known))]
        found: T = entry[0]
        return found


class SelfAttend(Protocol):
    """Self-attention of one forward: stores new keys, reads those that each chunk may see."""

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Store k, v (B, N, S, Hkv, hd) of this forward's chunks."""

    def read(self, layer: int, q: Tensor) -> Tensor:
        """Attend q (B, N, S, Hq, hd) over the keys of each chunk's range; same shape."""


class CrossAttend(Protocol):
    """Cross-attention of one forward: every chunk reads its own caption."""

    def __call__(self, layer: int, q: Tensor) -> Tensor:
        """Attend q (B, N, S, Hq, hd) over the captions; same shape."""

    def summary(self, null: Tensor) -> Tensor:
        """First feature row of each chunk's caption (B, N, Cc), or ``null`` (broadcast to that)
        where it is the null caption."""


@dataclass(frozen=True, eq=False)
class Pass:
    """What one forward is given beside the latents.

    t: (B, N) in [0, 1], or (1, N) for all worlds; 0 is noise, 1 is clean.
    frames: (B, N, W) int64, index of each latent frame from the start of the video.
    own, text: which keys each chunk reads.
    conditional: whether the ada condition says that a caption is there; a tensor (B, N) says it
        for each chunk.
    interval: distilled weights only, the scalar of the second time embedding; a tensor (B, N)
        gives one for each chunk.
    keys_only: stop as soon as the last layer's keys are written, and return the latents.
    memo: what is shared with other forwards between which no weight changes.
    gates: what `DiT.gates` gave for the same times and captions.
    """

    t: Tensor
    frames: Tensor
    own: SelfAttend
    text: CrossAttend
    conditional: bool | Tensor = True
    interval: float | Tensor | None = None
    keys_only: bool = False
    memo: Memo | None = None
    gates: Gates | None = None


class Block(nn.Module):
    """x + norm(gate * attention), then x + norm(gate * feed-forward)."""

    def __init__(self, config: DiTConfig, fp8: bool) -> None:
        super().__init__()
        self.ada_modulate_layer = AdaGate(config)
        self.self_attention = Attention(config, fp8)
        self.self_attn_post_norm = LayerNorm1p(config.hidden, config.eps)
        self.mlp = FeedForward(config, fp8)
        self.mlp_post_norm = LayerNorm1p(config.hidden, config.eps)

    def merge(self, x: Tensor, branch: Tensor, gates: tuple[Tensor, Tensor]) -> Tensor:
        """Add the attention branch, then the feed-forward, each gated, normed, summed in float32.

        Args:
            x, branch: (B, N, S, D); the stream and what `Attention.join` gave.
            gates: the two (B, N, 1, D) of `AdaGate`.
        """
        attn_gate, mlp_gate = gates
        x = (x.float() + self.self_attn_post_norm(attn_gate.float() * branch)).to(x.dtype)
        return (x.float() + self.mlp_post_norm(mlp_gate.float() * self.mlp(x))).to(x.dtype)


class Blocks(nn.Module):
    """The stack and the norm behind it."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        last = config.layers - 1
        self.layers = nn.ModuleList(
            Block(config, fp8=config.fp8 and 0 < i < last) for i in range(config.layers)
        )
        self.final_layernorm = LayerNorm1p(config.hidden, config.eps)


class FinalLinear(nn.Module):
    """The way out of the hidden width."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.hidden, config.patch**2 * config.channels, bias=False)


class DiT(nn.Module):
    """The transformer, with the parameter names of the released checkpoints."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.prepared = False  # laid out for speed (`magi_world.engine`)
        self.clean_beside = False  # clean chunks run in a forward of those in flight
        self.graphs = False  # forwards are recorded and replayed
        patch = (1, config.patch, config.patch)
        self.x_embedder = nn.Conv3d(config.channels, config.hidden, patch, patch, bias=False)
        self.t_embedder = TimeEmbedder(config.condition_width)
        self.y_embedder = CaptionEmbedder(config)
        self.rope = Rope(config.head_dim)
        self.videodit_blocks = Blocks(config)
        self.final_linear = FinalLinear(config)

    @property
    def blocks(self) -> list[Block]:
        """The blocks, first to last."""
        return cast(list[Block], list(self.videodit_blocks.layers))

    @property
    def dtype(self) -> torch.dtype:
        """The stream's precision; single parts are kept in float32 (see `parameter_dtype`)."""
        return self.blocks[0].self_attention.linear_qkv.layer_norm.weight.dtype

    def forward(self, x: Tensor, given: Pass) -> Tensor:
        """Flow velocity (clean minus noise) of every chunk; x and it are (B, N, C, W, H, W')."""
        h, w = x.shape[-2] // self.config.patch, x.shape[-1] // self.config.patch
        own, text, frames = given.own, given.text, given.frames
        tokens = self.embed(x)
        memo = Memo() if given.memo is None else given.memo
        rope = memo.get(("rope", id(frames), h, w), lambda: self._factors(frames, h, w), frames)
        gates = given.gates
        if gates is None:
            gates = self.gates(given.t, text, given.conditional, given.interval)
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            attn = block.self_attention
            q, qx, k, v = attn.project(tokens, rope)
            own.write(i, k, v)
            if given.keys_only and i == last:
                return x
            branch = attn.join(own.read(i, q), text(i, qx))
            tokens = block.merge(tokens, branch, gates[i])
        out = self.head(tokens, h, w)
        return out if self.config.prediction == "velocity" else velocity_to(out, x, given.t)

    def gates(
        self,
        t: Tensor,
        text: CrossAttend,
        conditional: bool | Tensor = True,
        interval: float | Tensor | None = None,
    ) -> Gates:
        """All gates of a forward, which depend on times and captions alone; see `Pass`."""
        row = self.y_embedder.null_row(conditional)
        if self.config.condition == "caption":
            row = text.summary(row)
        condition = self.condition(t, row, interval)
        return [block.ada_modulate_layer(condition) for block in self.blocks]

    def _factors(self, frames: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
        return full_width(self.rope(frames, h, w), self.config.head_dim)

    def embed(self, x: Tensor) -> Tensor:
        """Latents (B, N, C, W, H, W') -> tokens (B, N, S, D)."""
        if self.config.duplicate_channels:
            x = torch.cat([x, x], dim=2)
        # The convolution does not overlap, so it is one matrix product over patches; as such it is
        # faster, and rounds the same whatever the batch on most processors.
        p = self.config.patch
        b, n, c, w, height, width = x.shape
        patches = x.view(b, n, c, w, height // p, p, width // p, p).permute(0, 1, 3, 4, 6, 2, 5, 7)
        tokens = patches.reshape(b, n, -1, c * p * p) * self.config.rescale
        return F.linear(tokens, self.x_embedder.weight.flatten(1)).to(self.dtype)

    def condition(self, t: Tensor, row: Tensor, interval: float | Tensor | None) -> Tensor:
        """Times (B or 1, N) and caption row (.., Cc) -> ada condition (B or 1, N, D/4) float32."""
        time = self.t_embedder(t, self.dtype)
        if interval is not None:
            scalar = interval if isinstance(interval, Tensor) else t.new_full((), interval)
            time = time + self.t_embedder(scalar, self.dtype)
        return time + self.y_embedder.condition(row)

    def text_keys(self, caption: Tensor | None) -> list[tuple[Tensor, Tensor]]:
        """Caption features (.., L, Cc), None = null -> per layer k, v (.., L, Hkv, hd)."""
        if caption is None:
            caption = self.y_embedder.null_caption_embedding[:NULL_CAPTION_ROWS]
        projected = self.y_embedder.y_proj_xattn(caption.float()).to(self.dtype)
        return [block.self_attention.text_keys(projected) for block in self.blocks]

    def head(self, tokens: Tensor, h: int, w: int) -> Tensor:
        """Tokens (B, N, S, D) -> (B, N, C, W, h*p, w*p) float32, read as `prediction` says."""
        cfg = self.config
        y = self.final_linear.linear(self.videodit_blocks.final_layernorm(tokens))
        b, n = y.shape[:2]
        y = y.view(b, n, -1, h, w, cfg.patch, cfg.patch, cfg.channels)
        y = y.permute(0, 1, 7, 2, 3, 5, 4, 6)[:, :, : cfg.latent_channels]
        return y.reshape(b, n, cfg.latent_channels, -1, h * cfg.patch, w * cfg.patch) / cfg.rescale


# Parts that hold and compute in float32 also when the stream is bfloat16.
_FLOAT32 = (
    "x_embedder.",
    "y_embedder.",
    "t_embedder.",
    "final_linear.",
    "rope.",
    "q_layernorm.",
    "k_layernorm.",
    "self_attn_post_norm.",
    "mlp_post_norm.",
    "final_layernorm.",
    "_scale",
)


def parameter_dtype(name: str, stored: torch.dtype, dtype: torch.dtype) -> torch.dtype:
    """Precision of the parameter ``name`` in a stream of ``dtype`` (reference section 3).

    ``stored`` is its dtype on disk: fp8 weights stay fp8, and linear_proj, which multiplies in
    float32, keeps bfloat16 where that is what was released (nothing is lost, half the memory).
    """
    if stored == torch.float8_e4m3fn:
        return stored
    if any(part in name for part in _FLOAT32):
        return torch.float32
    if "linear_proj." in name and stored != torch.bfloat16:
        return torch.float32
    return dtype
