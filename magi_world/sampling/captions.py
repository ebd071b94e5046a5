"""Text keys and values: computed once a prompt, read by every chunk that carries it.

Shapes: B worlds, N chunks, S tokens a chunk, L caption rows, Hq/Hkv heads, hd head dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from magi_world.model.attention import Backend, attention


@dataclass(frozen=True, eq=False)
class TextKeys:
    """One caption as the transformer reads it.

    features: (L, caption_channels), or None for the null caption.
    layers: per layer k and v, each (1, L, Hkv, hd).
    """

    features: Tensor | None
    layers: tuple[tuple[Tensor, Tensor], ...]


class CaptionReads:
    """Cross-attention of one forward. Rows that carry the same caption are read in one call."""

    def __init__(self, captions: Sequence[Sequence[TextKeys]], backend: Backend) -> None:
        """``captions[b][n]`` is what chunk n of batch row b reads."""
        self.backend, self.shape = backend, (len(captions), len(captions[0]))
        self.captions = captions
        self.features = [c.features for chunks in captions for c in chunks]
        self.groups: dict[TextKeys, list[int]] = {}
        for row, caption in enumerate(c for chunks in captions for c in chunks):
            self.groups.setdefault(caption, []).append(row)

    def __call__(self, layer: int, q: Tensor) -> Tensor:
        """q (B, N, S, Hq, hd) -> the same shape."""
        if len(self.groups) == 1:
            (caption,) = self.groups
            return self._read(caption, layer, q.flatten(0, 2)).view(q.shape)
        rows, out = q.flatten(0, 1), torch.empty_like(q)
        for caption, index in self.groups.items():
            picked = rows[index]
            out.view(rows.shape)[index] = self._read(caption, layer, picked.flatten(0, 1)).view(
                picked.shape
            )
        return out

    def summary(self, null: Tensor) -> Tensor:
        """First feature row of each chunk's caption (B, N, Cc); ``null`` where it has none."""
        rows = [null if f is None else f[0].to(null.dtype) for f in self.features]
        return torch.stack(rows).view(*self.shape, -1)

    def _read(self, caption: TextKeys, layer: int, q: Tensor) -> Tensor:
        k, v = caption.layers[layer]
        return attention(q[None], k, v, self.backend)
