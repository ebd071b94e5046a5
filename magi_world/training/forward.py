"""The transformer's forward in training: whole clips at once, every chunk behind its history.

What a stream does chunk by chunk with a cache, done in one pass: n clean chunks give keys and
values, and K noisy ones read those of the chunks before them.

Legend: B clips, n clean chunks of a clip, K noisy chunks, G history chunks that one reads, S tokens
of a chunk, C W h w latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from magi_world.model.attention import plain_attention
from magi_world.model.dit import DiT, Pass


@dataclass(frozen=True)
class Captions:
    """One caption a noisy chunk.

    rows: (B, K, L, C) features, padded; mask: (B, K, L) bool, True where a row is real;
    dropped: (B, K) bool, True where the null caption is used instead.
    """

    rows: Tensor
    mask: Tensor
    dropped: Tensor


def history_index(after: Tensor, history: int) -> tuple[Tensor, Tensor]:
    """Which clean chunks a noisy chunk reads.

    Args:
        after: (K,) index of the clean chunk in front of each noisy one.

    Returns:
        index (K, G) into clean chunks, clamped at 0, and (K, G) bool, True where it is real.
    """
    index = after[:, None] + torch.arange(1 - history, 1, device=after.device)
    return index.clamp_min(0), index >= 0


class HistoryReads:
    """Self-attention of a training forward: n clean chunks, each on its own, then K noisy ones,
    each behind up to ``history`` of the clean ones."""

    def __init__(self, clean: int, after: Tensor, history: int, tokens: int) -> None:
        """``after``: (K,) the clean chunk in front of each noisy one. ``tokens``: S."""
        self.clean = clean
        self.index, real = history_index(after, history)
        hidden = torch.zeros(len(after), history, tokens, device=after.device)
        hidden = hidden.masked_fill(~real[..., None], float("-inf")).flatten(1)
        own = torch.zeros(len(after), tokens, device=after.device)
        self.bias = torch.cat([hidden, own], dim=1)[None, :, None, None, None]  # (1,K,1,1,1,Sk)

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Keep this layer's keys until it is read, right after."""
        self.k, self.v = k, v

    def read(self, layer: int, q: Tensor) -> Tensor:
        """(B, n + K, S, Hq, hd) -> the same."""
        n, k, v = self.clean, self.k, self.v
        still = plain_attention(q[:, :n], k[:, :n], v[:, :n])
        past_k, past_v = (self._past(x[:, :n]) for x in (k, v))
        moving = plain_attention(
            q[:, n:],
            torch.cat([past_k, k[:, n:]], dim=2),
            torch.cat([past_v, v[:, n:]], dim=2),
            self.bias,
        )
        return torch.cat([still, moving], dim=1)

    def _past(self, x: Tensor) -> Tensor:
        """Keys or values (B, n, S, ..) -> those that each noisy chunk reads, (B, K, G * S, ..)."""
        # index_select, because the gradient of x[:, index] is several times slower on a CPU.
        picked = x.index_select(1, self.index.flatten())
        return picked.unflatten(1, self.index.shape).flatten(2, 3)


class PaddedCaptions:
    """Cross-attention of a training forward: none for the n clean chunks, then `Captions`."""

    def __init__(self, model: DiT, clean: int, captions: Captions) -> None:
        self.clean, self.captions = clean, captions
        self.null, self.told = model.text_keys(None), model.text_keys(captions.rows)
        bias = torch.zeros(captions.mask.shape, device=captions.mask.device)
        self.bias = bias.masked_fill(~captions.mask, float("-inf"))[:, :, None, None, None]

    def __call__(self, layer: int, q: Tensor) -> Tensor:
        """(B, n + K, S, Hq, hd) -> the same."""
        n, (k, v) = self.clean, self.null[layer]
        nothing = plain_attention(q.flatten(1, 2), k[None], v[None]).view_as(q)
        told = plain_attention(q[:, n:], *self.told[layer], self.bias)
        absent = self.captions.dropped[..., None, None, None]
        return torch.cat([nothing[:, :n], torch.where(absent, nothing[:, n:], told)], dim=1)

    def summary(self, null: Tensor) -> Tensor:
        """First feature rows (B, n + K, Cc), ``null`` for clean chunks and dropped captions."""
        n, told = self.clean, self.captions
        rows = torch.where(told.dropped[..., None], null[:, n:], told.rows[:, :, 0])
        return torch.cat([null[:, :n], rows], dim=1)


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
    width = noisy.shape[3]
    tokens = (
        width * (clean.shape[-2] // model.config.patch) * (clean.shape[-1] // model.config.patch)
    )
    device = clean.device
    first = torch.cat([torch.arange(n, device=device), after + 1]) * width
    frames = (first[:, None] + torch.arange(width, device=device)).expand(b, -1, -1)
    times = torch.cat([t.new_full((b, n), clean_t), t], dim=1)
    if interval is not None:
        interval = torch.cat([interval[:, :1].expand(b, n), interval], dim=1)
    present = torch.cat(
        [torch.ones_like(captions.dropped[:, :1]).expand(b, n), ~captions.dropped], 1
    )
    own = HistoryReads(n, after, history, tokens)
    given = Pass(times, frames, own, PaddedCaptions(model, n, captions), present, interval)
    return model(torch.cat([clean, noisy], dim=1), given)[:, n:]
