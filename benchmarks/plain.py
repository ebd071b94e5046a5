"""What `engine_cpu` measures against: the same mathematics, written down without any care.

Text keys are computed anew in every layer of every forward, every pass is run whatever its
weight, and the keys of the whole history are kept, joined and masked. Same numbers, more work.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from magi_world.config import SamplerConfig
from magi_world.model.dit import NULL_CAPTION_ROWS, DiT, Pass
from magi_world.sampling import schedule
from magi_world.sampling.denoise import seeded_noise


class MaskedHistory:
    """Self-attention over all keys so far and those of this forward, under a boolean mask."""

    def __init__(self, past: list[list[Tensor]], mask: Tensor) -> None:
        self.past, self.mask = past, mask

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        self.new = (k.flatten(1, 2), v.flatten(1, 2))
        old = self.past[layer]
        self.k, self.v = (torch.cat([*old[i::2], self.new[i]], dim=1) for i in (0, 1))

    def read(self, layer: int, q: Tensor) -> Tensor:
        rows = q.flatten(1, 2).transpose(1, 2)
        k, v = self.k.transpose(1, 2), self.v.transpose(1, 2)
        out = F.scaled_dot_product_attention(rows, k, v, self.mask, enable_gqa=True)
        return out.transpose(1, 2).view(q.shape)


class KeepKeys(MaskedHistory):
    """The same, and the new keys join the history."""

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        super().write(layer, k, v)
        self.past[layer] += self.new


class RecomputedText:
    """Cross-attention that projects each chunk's caption again in every layer of every forward."""

    def __init__(self, dit: DiT, captions: list[Tensor | None]) -> None:
        self.dit, self.captions = dit, captions

    def __call__(self, layer: int, q: Tensor) -> Tensor:
        out, embedder = torch.empty_like(q), self.dit.y_embedder
        null = embedder.null_caption_embedding[:NULL_CAPTION_ROWS]
        for i, caption in enumerate(self.captions):
            rows = embedder.y_proj_xattn(null if caption is None else caption).to(q.dtype)
            keys = self.dit.blocks[layer].self_attention.text_keys(rows)
            k, v = (x.transpose(0, 1)[None] for x in keys)
            rows = q[:, i].transpose(1, 2)
            out[:, i] = F.scaled_dot_product_attention(rows, k, v, enable_gqa=True).transpose(1, 2)
        return out


class PlainStream:
    """One endless stream for distilled weights, window and ranges as configured, one caption."""

    def __init__(self, dit: DiT, config: SamplerConfig, size: tuple[int, int]) -> None:
        self.dit, self.config = dit, config
        self.shape = (dit.config.latent_channels, config.chunk_width, *size)
        patch = dit.config.patch
        self.tokens = config.chunk_width * (size[0] // patch) * (size[1] // patch)
        self.past: list[list[Tensor]] = [[] for _ in range(dit.config.layers)]
        self.flying: list[tuple[int, int, Tensor]] = []  # (chunk, steps taken, latents)
        self.cached, self.admitted = 0, 0
        self.newest_clean: Tensor | None = None

    @torch.inference_mode()
    def next_chunk(self, caption: Tensor) -> Tensor:
        """Latents (C, W, H, W') of the next clean chunk."""
        while True:
            noise = seeded_noise(0, self.admitted, self.shape)
            self.flying.append((self.admitted, 0, noise))
            self.admitted += 1
            for step in range(self.config.steps_per_stage):
                self._step(step, caption)
            if self.flying[0][1] == self.config.num_steps:
                _, _, self.newest_clean = self.flying.pop(0)
                return self.newest_clean

    def _step(self, step: int, caption: Tensor) -> None:
        config = self.config
        interval = schedule.step_embedding(config, step)
        grid = schedule.time_grid(config.num_steps, config.shortcut_mode, config.shift)
        if step == 0 and self.newest_clean is not None:
            mask = self._mask([self.cached], [config.clean_range])
            self._forward(
                KeepKeys, [(self.cached, self.newest_clean)], config.clean_t, mask, None, interval
            )
            self.cached += 1
            self.newest_clean = None
        chunks = [(chunk, x) for chunk, _, x in self.flying]
        done = [steps for _, steps, _ in self.flying]
        t = grid[done]
        ranges = [schedule.key_range(config, s) for s in done]
        mask = self._mask([c for c, _ in chunks], ranges)
        v = self._forward(MaskedHistory, chunks, t, mask, caption, interval)
        alone = self._mask([c for c, _ in chunks], [1] * len(chunks))
        solo = self._forward(MaskedHistory, chunks, t, alone, caption, interval)
        weight = config.solo_weight if float(t[0]) > config.solo_above_t else 0.0
        v[0] = (1 - weight) * v[0] + weight * solo[0]
        for i, (chunk, steps, x) in enumerate(self.flying):
            self.flying[i] = (chunk, steps + 1, x + v[i] * (grid[steps + 1] - grid[steps]))

    def _mask(self, chunks: list[int], ranges: list[int]) -> Tensor:
        keys = torch.tensor([*range(self.cached), *chunks])
        rows = torch.tensor(chunks)[:, None]
        seen = (keys <= rows) & (keys > rows - torch.tensor(ranges)[:, None])
        return seen.repeat_interleave(self.tokens, 0).repeat_interleave(self.tokens, 1)

    def _forward(
        self,
        history: type[MaskedHistory],
        chunks: list[tuple[int, Tensor]],
        t: Tensor | float,
        mask: Tensor,
        caption: Tensor | None,
        interval: float | None,
    ) -> Tensor:
        width = self.config.chunk_width
        first = torch.tensor([c * width for c, _ in chunks])
        frames = (first[:, None] + torch.arange(width))[None]
        times = torch.as_tensor(t).expand(1, len(chunks))
        x = torch.stack([x for _, x in chunks])[None]
        own = history(self.past, mask)
        text = RecomputedText(self.dit, [caption] * len(chunks))
        return self.dit(x, Pass(times, frames, own, text, True, interval))[0]
