"""The parts of the transformer: norms, embedders, gates, attention, feed-forward.

Shapes: B worlds, N chunks, S tokens a chunk, D hidden, C = D/4 condition width, L caption rows,
Hq query heads, Hkv key/value groups, hd head dim.
Sub-module names are those of the released checkpoints (reference section 2).
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magi_world.config import DiTConfig
from magi_world.model.quant import Fp8Linear
from magi_world.model.rope import rotate

SINUSOID = 256


class LayerNorm1p(nn.Module):
    """LayerNorm whose effective weight is ``weight + 1``; computes in the weight's own dtype."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size) in the weight's dtype."""
        weight = self.weight + 1
        return F.layer_norm(x.to(weight.dtype), weight.shape, weight, self.bias, self.eps)


class TimeEmbedder(nn.Module):
    """Sinusoid of a scalar, then a two-layer MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(SINUSOID, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor, rounding: torch.dtype) -> Tensor:
        """(...) -> (..., C). ``rounding`` is the stream's dtype: the sinusoid passes through it."""
        half = SINUSOID // 2
        steps = torch.arange(half, device=t.device, dtype=torch.float32)
        angle = (t.float() * 1000)[..., None] * torch.exp(steps * (-math.log(10000) / half))
        sinusoid = torch.cat([angle.cos(), angle.sin()], dim=-1)
        return self.mlp(sinusoid.to(rounding).to(next(self.mlp.parameters()).dtype))


class CaptionEmbedder(nn.Module):
    """Projects caption features for cross-attention and the null caption for the condition."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.y_proj_xattn = nn.Sequential(
            nn.Linear(config.caption_channels, config.hidden), nn.SiLU()
        )
        self.y_proj_adaln = nn.Sequential(
            nn.Linear(config.caption_channels, config.condition_width)
        )
        table = torch.randn(config.caption_length, config.caption_channels) * 0.02
        self.null_caption_embedding = nn.Parameter(table)

    def null_row(self, conditional: bool | Tensor) -> Tensor:
        """What says whether there is a caption at all: (Cc,), or (.., Cc) for (..) booleans."""
        there, absent = self.null_caption_embedding[-2], self.null_caption_embedding[-1]
        if isinstance(conditional, Tensor):
            return torch.where(conditional[..., None], there, absent)
        return there if conditional else absent

    def condition(self, row: Tensor) -> Tensor:
        """(.., Cc), a row of the null caption or of the caption itself -> (.., C)."""
        return self.y_proj_adaln(row)


class AdaGate(nn.Module):
    """Condition -> the two gates of a block."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Linear(config.condition_width, 2 * config.hidden))

    def forward(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, C) -> attention gate and feed-forward gate, each (B, N, 1, D)."""
        dtype = next(self.proj.parameters()).dtype
        # Rounded before the SiLU, not after: only so the released numbers come out to the bit.
        gates = torch.tanh(self.proj(F.silu(condition.to(dtype))))
        attn, mlp = gates[:, :, None].chunk(2, dim=-1)
        return attn, mlp


class FeedForward(nn.Module):
    """LayerNorm, fc1, GELU (erf) or SwiGLU, fc2."""

    def __init__(self, config: DiTConfig, fp8: bool) -> None:
        super().__init__()
        wide = config.ffn * (2 if config.gated else 1)
        self.gated = config.gated
        self.layer_norm = nn.LayerNorm(config.hidden, config.eps)
        self.linear_fc1 = linear(config.hidden, wide, fp8)
        self.linear_fc2 = linear(config.ffn, config.hidden, fp8, per_channel=True)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        x = self.linear_fc1(self.layer_norm(x))
        if self.gated:
            gate, value = x.chunk(2, dim=-1)
            x = F.silu(gate) * value
        else:
            x = F.gelu(x)
        return self.linear_fc2(x)


class QKV(nn.Module):
    """The norm and the four projections in front of attention."""

    def __init__(self, config: DiTConfig, fp8: bool) -> None:
        super().__init__()
        queries, keys = config.heads * config.head_dim, config.kv_groups * config.head_dim
        self.layer_norm = nn.LayerNorm(config.hidden, config.eps)
        self.q = linear(config.hidden, queries, fp8)
        self.qx = linear(config.hidden, queries, fp8)
        self.k = linear(config.hidden, keys, fp8)
        self.v = linear(config.hidden, keys, fp8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(..., D) -> self query, text query, key, value, each (..., heads * hd)."""
        a = self.layer_norm(x)
        return self.q(a), self.qx(a), self.k(a), self.v(a)


class FusedQKV(nn.Module):
    """`QKV` with one product, or, for fp8 layers, one quantisation."""

    def __init__(self, parts: QKV) -> None:
        super().__init__()
        self.layer_norm = parts.layer_norm
        layers: list[Any] = [parts.q, parts.qx, parts.k, parts.v]
        self.sizes = [layer.weight.shape[-2] for layer in layers]
        self.fp8 = isinstance(parts.q, Fp8Linear)
        if self.fp8:
            self.layers = nn.ModuleList(layers)
            # Compared once, here: on a GPU it has to be waited for.
            first = layers[0].input_scale[0]
            self.one_scale = all(bool(layer.input_scale[0] == first) for layer in layers)
        else:
            weight = torch.cat([layer.weight for layer in layers])
            self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(..., D) -> self query, text query, key, value, each (..., heads * hd)."""
        a = self.layer_norm(x)
        if not self.fp8:
            # Attention and the norms want rows that lie side by side.
            parts = F.linear(a, self.weight).split(self.sizes, dim=-1)
            return tuple(part.contiguous() for part in parts)
        if not self.one_scale:
            return tuple(layer(a) for layer in self.layers)
        q = cast(Fp8Linear, self.layers[0]).quantise(a)
        return tuple(cast(Fp8Linear, layer).product(q) for layer in self.layers)


class Attention(nn.Module):
    """Self-attention and cross-attention in parallel, joined by one projection."""

    def __init__(self, config: DiTConfig, fp8: bool) -> None:
        super().__init__()
        hd, eps = config.head_dim, config.eps
        self.head_dim = hd
        self.columns_in_order = False  # of linear_proj: all of self-attention, then the text's
        self.linear_qkv = QKV(config, fp8)
        self.linear_kv_xattn = nn.Linear(config.hidden, 2 * config.kv_groups * hd, bias=False)
        joined = 2 * config.heads * hd
        self.linear_proj = (
            Fp8Linear(joined, config.hidden, per_channel=True)
            if fp8
            else Float32Linear(joined, config.hidden, bias=False)
        )
        self.q_layernorm = LayerNorm1p(hd, eps)
        self.k_layernorm = LayerNorm1p(hd, eps)
        self.q_layernorm_xattn = LayerNorm1p(hd, eps)
        self.k_layernorm_xattn = LayerNorm1p(hd, eps)

    def project(
        self, x: Tensor, rope: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Stream (B, N, S, D) -> q, qx (.., Hq, hd) and k, v (.., Hkv, hd), normed and rotated."""
        q, qx, k, v = (y.unflatten(-1, (-1, self.head_dim)) for y in self.linear_qkv(x))
        q = rotate(self.q_layernorm(q), rope).to(v.dtype)
        k = rotate(self.k_layernorm(k), rope).to(v.dtype)
        return q, self.q_layernorm_xattn(qx), k, v

    def text_keys(self, caption: Tensor) -> tuple[Tensor, Tensor]:
        """Projected caption (L, D) -> k, v (L, Hkv, hd)."""
        both = self.linear_kv_xattn(caption).unflatten(-1, (-1, 2 * self.head_dim))
        k, v = both.chunk(2, dim=-1)
        return self.k_layernorm_xattn(k), v

    def join(self, own: Tensor, text: Tensor) -> Tensor:
        """Self- and cross-attention, each (B, N, S, Hq, hd) -> (B, N, S, D)."""
        if self.columns_in_order:
            return self.linear_proj(torch.cat([own.flatten(-2), text.flatten(-2)], dim=-1))
        # The released projection expects its input columns as 8 slices of both in turn.
        pair = torch.stack([own.flatten(-2), text.flatten(-2)], dim=-2)
        return self.linear_proj(pair.unflatten(-1, (8, -1)).transpose(-3, -2).flatten(-3))


class Float32Linear(nn.Linear):
    """A linear layer that multiplies and answers in float32, whatever it is stored in."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out) float32."""
        if x.is_cuda and x.dtype == self.weight.dtype == torch.bfloat16:
            # A product of two bfloat16 numbers is exact in float32, so the tensor cores, which
            # sum in float32, do the same multiplication many times faster.
            flat = torch.mm(x.flatten(0, -2), self.weight.t(), out_dtype=torch.float32)
            return flat.view(*x.shape[:-1], -1)
        return F.linear(x.float(), self.weight.float())


def linear(size_in: int, size_out: int, fp8: bool, per_channel: bool = False) -> nn.Module:
    """A layer without bias, quantised or not."""
    if fp8:
        return Fp8Linear(size_in, size_out, per_channel)
    return nn.Linear(size_in, size_out, bias=False)
