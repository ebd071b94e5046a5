"""The training forward: clean history and noisy targets of a whole clip in one pass.

It computes exactly what the stream computes chunk by chunk (window 1, clean chunks that see only
themselves), so that nothing differs between training and use; a test holds it to that.

Legend: B clips, n clean chunks of a clip, K noisy chunks, W latent frames a chunk, S tokens a
chunk, H R hidden heads and key groups, hd head dim, L caption rows, G history chunks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from magi_world.model.dit import NULL_CAPTION_ROWS, DiT


@dataclass(frozen=True)
class Captions:
    """One caption a noisy chunk.

    rows: (B, K, L, C) features, padded; mask: (B, K, L) bool, True where a row is real;
    dropped: (B, K) bool, True where the null caption is used instead.
    """

    rows: Tensor
    mask: Tensor
    dropped: Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attention by the plain formula: q (.., Sq, H, hd), k v (.., Sk, R, hd) -> like q.

    On a CPU this is several times faster than the fused kernels, forward and backward, for tens of
    tokens. bias: added to the scores, broadcast to (.., R, H / R, Sq, Sk).
    """
    r, d = k.shape[-2:]
    q = q.unflatten(-2, (r, -1)).movedim(-4, -2)  # (.., R, H/R, Sq, hd)
    k, v = (x.movedim(-3, -2).unsqueeze(-3) for x in (k, v))  # (.., R, 1, Sk, hd)
    share, rows = q.shape[-3:-1]
    flat = q.flatten(-3, -2).unsqueeze(-3) * d**-0.5
    scores = flat @ k.transpose(-1, -2)  # (.., R, 1, H/R * Sq, Sk)
    if bias is not None:
        scores = scores + bias
    out = (scores.softmax(-1).to(v.dtype) @ v).squeeze(-3).unflatten(-2, (share, rows))
    return out.movedim(-2, -4).flatten(-3, -2)


def history_index(after: Tensor, history: int) -> tuple[Tensor, Tensor]:
    """Which clean chunks a noisy chunk reads.

    Args:
        after: (K,) index of the clean chunk in front of each noisy one.

    Returns:
        index (K, G) into clean chunks, clamped at 0, and (K, G) bool, True where it is real.
    """
    index = after[:, None] + torch.arange(1 - history, 1, device=after.device)
    return index.clamp_min(0), index >= 0


def condition(model: DiT, t: Tensor, interval: Tensor | None, dropped: Tensor | None) -> Tensor:
    """Times (B, N) -> ada condition (B, N, D/4); ``interval`` (B, N) for distilled weights."""
    out = model.t_embedder(t, model.dtype)
    if interval is not None:
        out = out + model.t_embedder(interval, model.dtype)
    there = model.y_embedder.condition(True)
    if dropped is None:
        return out + there
    absent = model.y_embedder.condition(False)
    return out + torch.where(dropped[..., None], absent, there)


def velocity(
    model: DiT,
    clean: Tensor,
    noisy: Tensor,
    t: Tensor,
    after: Tensor,
    captions: Captions,
    interval: Tensor | None = None,
    history: int = 4,
    clean_t: float = 0.9999,
) -> Tensor:
    """Flow velocity of every noisy chunk, each behind up to ``history`` clean chunks.

    Args:
        clean: (B, n, C, W, H, W') latents of consecutive chunks.
        noisy: (B, K, C, W, H, W').
        t: (B, K) times of the noisy chunks.
        after: (K,) int64, the clean chunk directly in front of each noisy chunk.
        interval: (B, K) second time scalar, for distilled weights; all entries of a clip equal.

    Returns:
        (B, K, C, W, H, W') float32.
    """
    b, n = clean.shape[:2]
    k_count, width = noisy.shape[1], noisy.shape[3]
    h, w = clean.shape[-2] // model.config.patch, clean.shape[-1] // model.config.patch
    device = clean.device
    first = torch.cat([torch.arange(n, device=device), after + 1]) * width
    frames = (first[:, None] + torch.arange(width, device=device)).expand(b, -1, -1)
    rope = model.rope(frames, h, w)
    tokens = model.embed(torch.cat([clean, noisy], dim=1))

    times = torch.cat([t.new_full((b, n), clean_t), t], dim=1)
    if interval is not None:
        interval = torch.cat([interval[:, :1].expand(b, n), interval], dim=1)
    dropped = torch.cat(
        [torch.zeros_like(captions.dropped[:, :1]).expand(b, n), captions.dropped], 1
    )
    gates_from = condition(model, times, interval, dropped)

    index, real = history_index(after, history)
    hidden = torch.zeros(k_count, history, tokens.shape[2], device=device)
    hidden = hidden.masked_fill(~real[..., None], float("-inf")).flatten(1)
    own = torch.zeros(k_count, tokens.shape[2], device=device)
    bias = torch.cat([hidden, own], dim=1)[None, :, None, None, None]  # (1, K, 1, 1, 1, Sk)

    null = model.y_embedder.null_caption_embedding[:NULL_CAPTION_ROWS]
    project = model.y_embedder.y_proj_xattn
    null_rows, rows = project(null), project(captions.rows)
    text_bias = torch.zeros(captions.mask.shape, device=device)
    text_bias = text_bias.masked_fill(~captions.mask, float("-inf"))
    text_bias = text_bias[:, :, None, None, None]
    absent = captions.dropped[..., None, None, None]

    for block in model.blocks:
        attn = block.self_attention
        q, qx, k, v = attn.project(tokens, rope)
        still = attend(q[:, :n], k[:, :n], v[:, :n])
        past_k, past_v = (x[:, :n][:, index].flatten(2, 3) for x in (k, v))
        moving = attend(
            q[:, n:],
            torch.cat([past_k, k[:, n:]], dim=2),
            torch.cat([past_v, v[:, n:]], dim=2),
            bias,
        )
        nk, nv = attn.text_keys(null_rows)
        nothing = attend(qx.flatten(1, 2), nk[None], nv[None]).view_as(qx)
        tk, tv = attn.text_keys(rows)
        told = attend(qx[:, n:], tk, tv, text_bias)
        text = torch.cat([nothing[:, :n], torch.where(absent, nothing[:, n:], told)], dim=1)
        branch = attn.join(torch.cat([still, moving], dim=1), text)
        tokens = block.merge(tokens, branch, block.ada_modulate_layer(gates_from))
    return model.head(tokens[:, n:], h, w)
