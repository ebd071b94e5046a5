"""The parts of the transformer: norms, positions, embedders, gates, linear layers, feed-forward,
attention. Sub-module names are those of the released checkpoints (reference sections 2 and 3).

Shape legend
    B   worlds         N    chunks             W   latent frames a chunk    S   tokens a chunk
    D   hidden         C    D/4, condition     L   caption rows             Cc  caption channels
    Hq  query heads    Hkv  key/value groups   hd  head dim                 K   hd/8, rope's bands
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magi_world.config import DiTConfig

SINUSOID = 256
E4M3_MAX = 448.0


class LayerNorm1p(nn.Module):
    """LayerNorm whose effective weight is ``weight + 1``; computes in the weight's own dtype."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.eps = eps
        self.settled: Tensor | None = None  # weight + 1, of a weight that no longer changes

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size) in the weight's dtype."""
        weight = self.settled
        if weight is None or self.weight.requires_grad:
            weight = self.weight + 1
        return F.layer_norm(x.to(weight.dtype), weight.shape, weight, self.bias, self.eps)


class Rope(nn.Module):
    """Learned bands; sines and cosines of (t, h, w) times each band.

    The first 6K dims of a head are rotated as two halves of 3K, the rest is not.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        count = head_dim // 8
        bands = torch.empty(count)
        if not bands.is_meta:  # of shapes alone torch would load its compiler for it, for seconds
            bands = 10000 ** -(torch.arange(count) / count)
        self.bands = nn.Parameter(bands)

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


def full_width(rope: tuple[Tensor, Tensor], head_dim: int) -> tuple[Tensor, Tensor]:
    """Sine and cosine of `Rope` -> factors (B, N, S, 1, hd) of a head's swapped and own numbers.

    Where nothing is rotated they are 0 and 1, so that a rotation is two products of whole rows.
    """
    sin, cos = rope
    rest = (*sin.shape[:-1], head_dim - 2 * sin.shape[-1])
    swapped = torch.cat([-sin, sin, sin.new_zeros(rest)], dim=-1)
    return swapped, torch.cat([cos, cos, cos.new_ones(rest)], dim=-1)


def rotate(x: Tensor, factors: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate x (B, N, S, H, hd) by `full_width` factors; the result has x's dtype."""
    swapped, own = factors
    k = 3 * (x.shape[-1] // 8)
    other = torch.cat([x[..., k : 2 * k], x[..., :k], x[..., 2 * k :]], dim=-1)
    if torch.is_grad_enabled():
        return (x * own + other * swapped).to(x.dtype)
    # In place: of a large batch, new memory costs more than the sum.
    return (x * own).add_(other.mul_(swapped)).to(x.dtype)


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
        table = torch.empty(config.caption_length, config.caption_channels)
        if not table.is_meta:
            table = table.normal_() * 0.02
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


def linear(size_in: int, size_out: int, fp8: bool, per_channel: bool = False) -> nn.Module:
    """A layer without bias, quantised or not."""
    if fp8:
        return Fp8Linear(size_in, size_out, per_channel)
    return nn.Linear(size_in, size_out, bias=False)


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


class Fp8Linear(nn.Module):
    """y = (e4m3(x / scale) @ weight^T) * input_scale * weight_scale, rounded to bfloat16 once.

    Weights are (1, out, in) float8_e4m3fn, as the released fp8 checkpoints have them.

    per_channel: the division is by ``smooth_scale`` (1, in), otherwise by ``input_scale``, which
        is then stored ``in_features`` times and acts as one number.
    """

    def __init__(self, in_features: int, out_features: int, per_channel: bool) -> None:
        super().__init__()
        self.fast_accumulate = False  # on a GPU: short accumulators, as in the released code
        self.fused_quantise = False  # on a GPU: one kernel (`magi_world.model.fp8_kernel`)
        weight = torch.empty(1, out_features, in_features, dtype=torch.float8_e4m3fn)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.weight_scale = nn.Parameter(torch.empty(1), requires_grad=False)
        length = 1 if per_channel else in_features
        self.input_scale = nn.Parameter(torch.empty(length), requires_grad=False)
        self.smooth_scale: nn.Parameter | None = None
        if per_channel:
            self.smooth_scale = nn.Parameter(torch.empty(1, in_features), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out) in bfloat16."""
        return self.product(self.quantise(x))

    def quantise(self, x: Tensor) -> Tensor:
        """(..., in) -> the same in e4m3."""
        if self.fused_quantise and x.is_cuda:
            from magi_world.model.fp8_kernel import quantise

            divisors = self.input_scale[:1] if self.smooth_scale is None else self.smooth_scale
            return quantise(x, divisors, E4M3_MAX)
        divisor = self.input_scale[0] if self.smooth_scale is None else self.smooth_scale
        y = (x.float() / divisor).clamp(-E4M3_MAX, E4M3_MAX)
        return y.bfloat16().to(torch.float8_e4m3fn)

    def product(self, q: Tensor) -> Tensor:
        """(..., in) e4m3 -> (..., out) in bfloat16."""
        step, weight = self.input_scale[0], self.weight[0]
        if q.is_cuda:
            flat = torch._scaled_mm(
                q.view(-1, q.shape[-1]),
                weight.t(),
                scale_a=step,
                scale_b=self.weight_scale[0],
                out_dtype=torch.bfloat16,
                use_fast_accum=self.fast_accumulate,
            )
            return flat.view(*q.shape[:-1], weight.shape[0])
        # A product of two e4m3 numbers is exact in float32, so this is the same sum.
        y = F.linear(q.float(), weight.float())
        return (y * (step * self.weight_scale)).bfloat16()


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


class FusedHeads(nn.Module):
    """What `Attention.project` does, with both queries and the key as one array of heads.

    One product, one norm and one rotation take the place of three, three and two. For a stream of
    float32: in bfloat16 the norms are in different precisions.
    """

    def __init__(self, parts: Attention) -> None:
        super().__init__()
        qkv = parts.linear_qkv
        self.layer_norm, self.v = qkv.layer_norm, qkv.v
        self.head_dim = hd = parts.head_dim
        layers: list[Any] = [qkv.q, qkv.k, qkv.qx]
        norms = (parts.q_layernorm, parts.k_layernorm, parts.q_layernorm_xattn)
        self.eps = norms[0].eps
        self.queries, keys, _ = counts = [layer.weight.shape[0] // hd for layer in layers]
        self.rotated = self.queries + keys
        with torch.device("meta"):
            self.product = nn.Linear(self.layer_norm.normalized_shape[0], sum(counts) * hd, False)
        self.product.weight = _frozen(torch.cat([layer.weight for layer in layers]))
        lay_out(self.product)
        per_head = list(zip(norms, counts, strict=True))
        self.scale = _frozen(torch.cat([(n.weight + 1).expand(c, hd) for n, c in per_head]))
        self.shift = _frozen(torch.cat([n.bias.expand(c, hd) for n, c in per_head]))

    @staticmethod
    def fits(parts: Attention) -> bool:
        """Whether all of it is float32 and none of it quantised."""
        norms = (parts.q_layernorm, parts.k_layernorm, parts.q_layernorm_xattn)
        plain = isinstance(parts.linear_qkv.q, nn.Linear)
        return plain and all(
            x.dtype == torch.float32
            for x in (*(n.weight for n in norms), parts.linear_qkv.layer_norm.weight)
        )

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `Attention.project`; the results are views."""
        a = self.layer_norm(x)
        heads = self.product(a).unflatten(-1, (-1, self.head_dim))
        heads = F.layer_norm(heads, (self.head_dim,), None, None, self.eps)
        heads = torch.addcmul(self.shift, heads, self.scale)
        own = rotate(heads[..., : self.rotated, :], rope)
        v = self.v(a).unflatten(-1, (-1, self.head_dim))
        queries, keys = own[..., : self.queries, :], own[..., self.queries :, :]
        return queries, heads[..., self.rotated :, :], keys, v


def _frozen(x: Tensor) -> nn.Parameter:
    return nn.Parameter(x, requires_grad=False)


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
        """Stream (B, N, S, D) -> q, qx (.., Hq, hd) and k, v (.., Hkv, hd), normed and rotated.

        ``rope``: `full_width` factors of the tokens' positions.
        """
        layer: nn.Module = self.linear_qkv
        if isinstance(layer, FusedHeads):
            return layer(x, rope)
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
        slices = (x.flatten(-2).unflatten(-1, (8, -1)) for x in (own, text))
        return self.linear_proj(torch.stack(list(slices), dim=-2).flatten(-3))


def settle(module: nn.Module) -> None:
    """Work out once what follows from weights that no longer change. The numbers stay the same.

    The large matrices of blocks on a CPU are laid out column by column, which products with few
    rows read faster; shapes and names stay.
    """
    for part in module.modules():
        if isinstance(part, LayerNorm1p):
            part.settled = (part.weight + 1).detach()
        elif isinstance(part, QKV):
            lay_out(part.q, part.qx, part.k, part.v)
        elif isinstance(part, Attention):
            lay_out(part.linear_proj)
        elif isinstance(part, FeedForward):
            lay_out(part.linear_fc1, part.linear_fc2)


def lay_out(*layers: nn.Module) -> None:
    """Column by column, where it is an ordinary layer on a CPU."""
    for layer in layers:
        if isinstance(layer, nn.Linear) and layer.weight.device.type == "cpu":
            columns = layer.weight.detach().t().contiguous().t()
            layer.weight = nn.Parameter(columns, requires_grad=layer.weight.requires_grad)
