"""Text keys and values: computed once a prompt, read by every chunk that carries it.

Shapes: B worlds, N chunks, S tokens a chunk, L caption rows, Hq/Hkv heads, hd head dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from magi_world.model.attention import Backend, attend_ranges, attention
from magi_world.sampling.rows import Indices, ranges_of


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

    def __init__(
        self,
        captions: Sequence[Sequence[TextKeys]],
        backend: Backend,
        indices: Indices | None = None,
    ) -> None:
        """``captions[b][n]`` is what chunk n of batch row b reads; ``indices`` may be shared."""
        self.backend, self.shape = backend, (len(captions), len(captions[0]))
        self.captions = captions
        self.features = [c.features for chunks in captions for c in chunks]
        self.groups: dict[TextKeys, list[int]] = {}
        for row, caption in enumerate(c for chunks in captions for c in chunks):
            self.groups.setdefault(caption, []).append(row)
        self.indices = indices
        self.ranges: tuple[Tensor, Tensor] | None = None

    def __call__(self, layer: int, q: Tensor) -> Tensor:
        """q (B, N, S, Hq, hd) -> the same shape."""
        if self.backend == "magi":
            return self._read_ranges(layer, q)
        if len(self.groups) == 1:
            (caption,) = self.groups
            return self._read(caption, layer, q.flatten(0, 2)).view(q.shape)
        if self.indices is None:
            self.indices = Indices(q.device)
        rows, out = q.flatten(0, 1), torch.empty_like(q)
        for caption, places in self.groups.items():
            index = self.indices(places)
            picked = rows[index]
            out.view(rows.shape)[index] = self._read(caption, layer, picked.flatten(0, 1)).view(
                picked.shape
            )
        return out

    def _read_ranges(self, layer: int, q: Tensor) -> Tensor:
        """All captions in one call: their keys one behind the other, each chunk reads its own."""
        k, v = (
            torch.cat([caption.layers[layer][part][0] for caption in self.groups])
            for part in (0, 1)
        )
        if self.ranges is None:
            self.ranges = self._make_ranges(q)
        return attend_ranges(q.flatten(0, 2), k, v, *self.ranges).view(q.shape)

    def _make_ranges(self, q: Tensor) -> tuple[Tensor, Tensor]:
        tokens, start, pairs = q.shape[2], 0, []
        for caption, places in self.groups.items():
            end = start + caption.layers[0][0].shape[1]
            pairs += [(place, (start, end)) for place in places]
            start = end
        rows = [(place * tokens, (place + 1) * tokens) for place, _ in pairs]
        return ranges_of(rows, q.device), ranges_of([keys for _, keys in pairs], q.device)

    def summary(self, null: Tensor) -> Tensor:
        """First feature row of each chunk's caption (B, N, Cc); ``null`` where it has none."""
        rows = [null if f is None else f[0].to(null.dtype) for f in self.features]
        return torch.stack(rows).view(*self.shape, -1)

    def _read(self, caption: TextKeys, layer: int, q: Tensor) -> Tensor:
        k, v = caption.layers[layer]
        return attention(q[None], k, v, self.backend, text=True)
