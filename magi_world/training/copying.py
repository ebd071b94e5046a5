"""A start for the transformer that goes on as it was: every cell copied from the chunk before.

Almost all of a next chunk is in the one before it, and a transformer that begins from noise takes
most of its training to find that out. Here it is put into the weights before the first step, as
the codec's linear start is (`magi_world.training.codec`); training then learns what changes.

    layer 0   adds a constant to two channels, beside which the norms rescale nothing else
    layer 1   some heads read the same cell one chunk earlier, by position alone, and write it
              into channels of their own
    output    least squares from the last norm's channels onto real chunks

All other branches start small.

Legend: C numbers of a token (latent channels x patch^2), D hidden, hd head dim, W latent frames.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from magi_world.config import DiTConfig
from magi_world.model.dit import DiT

CONSTANT = 4.0  # quadratic mean of the two constants over all channels; a token's own is near 1
SHARP = 2.0  # scale of the copying heads' queries and keys
SMALL = 0.1  # scale of every other branch
# How a copying head's attention is shared out over the bands of time, row and column.
TIME, SPACE = (0.2, 0.1, 0.0, 0.0), (0.12, 0.16, 0.07, 0.0)


def heads_for(numbers: int, head_dim: int) -> int:
    """Heads that carry a token, the channel that keeps its sum at zero, and a constant."""
    return -(-(numbers + 2) // head_dim)


def check_room(config: DiTConfig) -> None:
    """Whether the copy fits into a transformer of these sizes.

    Raises:
        ValueError: it does not; says what would be enough.
    """
    numbers = config.channels * config.patch**2
    heads = heads_for(numbers, config.head_dim)
    enough = {"hidden": 2 * (numbers + 1) + 2, "layers": 2, "heads": heads, "kv_groups": heads}
    small = [f"{k} {getattr(config, k)} < {n}" for k, n in enough.items() if getattr(config, k) < n]
    if config.heads != config.kv_groups:
        small.append(f"kv_groups {config.kv_groups} is not heads {config.heads}")
    if small:
        raise ValueError(
            f"dynamics.copy_start has no room in dynamics.dit: {'; '.join(small)} (a token has "
            f"{numbers} numbers); leave copy_start out or make dit larger"
        )


@torch.no_grad()
def start_copying(model: DiT, width: int, seed: int = 0) -> None:
    """Put the copy of the chunk before into ``model``, begun by `dynamics.start`.

    Args:
        width: latent frames of a chunk.

    Raises:
        ValueError: there is no room for it (`check_room`).
    """
    cfg = model.config
    check_room(cfg)
    numbers = cfg.channels * cfg.patch**2
    need = 2 * (numbers + 1) + 2
    token, copied = slice(0, numbers + 1), slice(numbers + 1, 2 * numbers + 2)
    constants = [need - 2, need - 1]
    basis = zero_sum_basis(numbers, seed) * (cfg.hidden / numbers) ** 0.5
    model.x_embedder.weight.zero_()
    model.x_embedder.weight.flatten(1)[token] = basis
    size = CONSTANT * (cfg.hidden / 2) ** 0.5
    for i, block in enumerate(model.blocks):
        for norm in (block.self_attn_post_norm, block.mlp_post_norm):
            norm.weight.fill_(SMALL - 1)
        if i:
            # What the constants take from a token's channels the norms give back.
            for plain in (block.self_attention.linear_qkv.layer_norm, block.mlp.layer_norm):
                plain.weight.fill_(CONSTANT)
                plain.weight[constants] = 0
    model.blocks[0].self_attn_post_norm.bias[constants] = torch.tensor([size, -size])

    attn = model.blocks[1].self_attention
    qkv, hd, first = attn.linear_qkv, cfg.head_dim, constants[0]
    qkv.layer_norm.weight[constants] = 1
    heads = heads_for(numbers, hd)
    rows = slice(0, heads * hd)
    query, key, value, out = (
        cast(nn.Linear, layer).weight for layer in (qkv.q, qkv.k, qkv.v, attn.linear_proj)
    )
    for weight, pattern in zip((query, key), position_patterns(model, width), strict=True):
        weight[rows] = 0
        weight[rows, first] = pattern.repeat(heads)
    for scale in (attn.q_layernorm, attn.k_layernorm):
        scale.weight.fill_(SHARP - 1)
    value[rows] = 0
    value[: numbers + 1, token] = torch.eye(numbers + 1)
    value[numbers + 1, first] = 1
    joined = torch.zeros(cfg.hidden, cfg.heads * hd)
    joined[copied, : numbers + 1] = torch.eye(numbers + 1)
    loud = CONSTANT  # beside the copy, so that its norm does not rescale it
    joined[constants[0], numbers + 1], joined[constants[1], numbers + 1] = loud, -loud
    free = out.unflatten(1, (8, 2, -1))[:, :, 0].flatten(1)
    joined[:, heads * hd :] = free[:, heads * hd :]
    out.unflatten(1, (8, 2, -1))[:, :, 0] = joined.unflatten(1, (8, -1))
    # The branch's mean square is that of its two constants; the copy comes out as large as it is.
    seen = math.sqrt(cfg.hidden / 2) * CONSTANT / math.sqrt(1 + CONSTANT**2)
    block = model.blocks[1]
    block.self_attn_post_norm.weight[copied] = math.sqrt(2 / cfg.hidden) * loud * seen - 1
    block.self_attn_post_norm.weight[constants] = -1


def zero_sum_basis(numbers: int, seed: int) -> Tensor:
    """(numbers + 1, numbers) orthonormal columns that sum to zero: a norm takes away nothing."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(numbers + 1, numbers, generator=generator)
    return torch.linalg.qr(x - x.mean(0))[0]


def position_patterns(model: DiT, width: int) -> tuple[Tensor, Tensor]:
    """A query and a key (hd,) that, rotated, fit where the key's token is ``width`` latent frames
    earlier in the same place."""
    hd, bands = model.config.head_dim, model.rope.bands.detach()
    count = len(bands)
    share = torch.cat([_spread(s, count) for s in (TIME, SPACE, SPACE)])
    signs = torch.tensor([1.0, -1.0]).repeat(len(share))[: len(share)]
    phase = torch.cat([-bands * width, torch.zeros(2 * count)])
    size = share.sqrt() * signs
    query, key = torch.zeros(hd), torch.zeros(hd)
    query[: len(size)], query[len(size) : 2 * len(size)] = size * phase.cos(), size * phase.sin()
    key[: len(size)] = size
    rest = slice(2 * len(size), hd)  # not rotated: they take the sums to zero for the norms
    query[rest] -= query.sum() / (hd - 2 * len(size))
    key[rest] -= key.sum() / (hd - 2 * len(size))
    return query, key


def _spread(shares: tuple[float, ...], count: int) -> Tensor:
    """The shares on ``count`` bands, from the fastest."""
    out = torch.zeros(count)
    out[: min(count, len(shares))] = torch.tensor(shares[:count])
    return out


@torch.no_grad()
def fit_output(
    model: DiT, features: Tensor, target: Tensor, weight: Tensor, ridge: float = 1e-3
) -> None:
    """Make the output the best linear map from the last norm's channels to clean latents.

    Args:
        features: (N, S, D), what `final_layernorm` gave.
        target: (N, C, W, h p, w p) clean latents.
        weight: (N,) of each chunk in the sum of squares.
    """
    cfg, p = model.config, model.config.patch
    n, c, w, height, width = target.shape
    cells = target.view(n, c, w, height // p, p, width // p, p).permute(0, 2, 3, 5, 4, 6, 1)
    rows = cells.reshape(n, -1, p * p * c).double() * cfg.rescale
    f = features.double() * weight.sqrt().double()[:, None, None]
    gram = torch.einsum("nsd,nse->de", f, f)
    against = torch.einsum("nsd,nsc->dc", f, rows * weight.sqrt().double()[:, None, None])
    gram += ridge * gram.diagonal().mean() * torch.eye(len(gram))
    model.final_linear.linear.weight.copy_(torch.linalg.solve(gram, against).T)
