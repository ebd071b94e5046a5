"""What a world predicts about a chunk beside its pixels: events, reward, end.

Shape legend
    B  chunks           C  latent channels    T, h, w  latent frames, rows, columns
    E  events           D  width              n  chunks that are seen, the last one is judged
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magi_world.config import require


@dataclass(frozen=True)
class HeadsConfig:
    """Sizes, and what the events are worth.

    events: names of the predicted events, each with its probability in a chunk.
    reward: what one occurrence of each event adds to the reward.
    end: name of the event that ends the episode, '' = nothing does.
    chunks: how many chunks are seen, the judged one last. With 2, what changes from one chunk to
        the next is seen too; a chunk of a single frame shows no change by itself.
    own: (mean, spread) of the environment's own reward in a chunk, which is then predicted by a
        regression of its own; None: the reward is what the events are worth.
    """

    latent_channels: int
    latent_frames: int
    latent_size: tuple[int, int]
    events: tuple[str, ...]
    reward: tuple[float, ...]
    end: str = ""
    width: int = 64
    own: tuple[float, float] | None = None
    chunks: int = 1

    def __post_init__(self) -> None:
        require(self.chunks in (1, 2), f"HeadsConfig.chunks is {self.chunks}; it must be 1 or 2")
        require(len(self.events) > 0, "HeadsConfig.events is empty; name at least one event")
        require(
            len(self.reward) == len(self.events),
            f"HeadsConfig.reward has {len(self.reward)} values; it must have one for each of "
            f"{self.events}",
        )
        require(
            self.end in ("", *self.events),
            f"HeadsConfig.end is {self.end!r}; it must be '' or one of {self.events}",
        )
        require(
            self.own is None or (len(self.own) == 2 and self.own[1] > 0),
            f"HeadsConfig.own is {self.own}; it must be (mean, spread > 0) or None",
        )


class Heads(nn.Module):
    """A small convolutional network over the latent frames that are seen, side by side."""

    def __init__(self, config: HeadsConfig) -> None:
        super().__init__()
        self.config = config
        h, w = (-(-s // 2) for s in config.latent_size)  # the second convolution's stride
        seen = config.latent_channels * config.latent_frames * config.chunks
        self.conv1 = nn.Conv2d(seen, config.width, 3, 1, 1)
        self.conv2 = nn.Conv2d(config.width, config.width, 3, 2, 1)
        self.fc1 = nn.Linear(config.width * h * w, config.width)
        self.fc2 = nn.Linear(config.width, len(config.events))
        if config.own is not None:
            self.value = nn.Linear(config.width, 1)

    @property
    def chunks(self) -> int:
        """How many chunks are seen, the judged one last."""
        return self.config.chunks

    @property
    def worth(self) -> dict[str, float]:
        """Event -> what one occurrence of it adds to the reward."""
        return dict(zip(self.config.events, self.config.reward, strict=True))

    def logits(self, latents: Tensor) -> Tensor:
        """Logits (B, E) of the events; latents as in `features`."""
        return self.fc2(self.features(latents))

    def features(self, latents: Tensor) -> Tensor:
        """What is judged from, (B, D).

        Args:
            latents: scaled, (B, C, T, h, w) of one chunk each, or (B, C, 2 T, h, w) with the chunk
                before in front. Heads that see one chunk leave the one before out; heads that see
                two take a chunk alone as if nothing had changed.

        Raises:
            ValueError: latents of another shape.
        """
        cfg = self.config
        expected = (cfg.latent_channels, cfg.latent_frames, *cfg.latent_size)
        whole, length = tuple(latents.shape), cfg.latent_frames
        require(
            len(whole) == 5
            and (whole[1], *whole[3:]) == (expected[0], *expected[2:])
            and whole[2] in (length, 2 * length),
            f"latents have shape {whole}; they must be (B, {expected}), or twice as many frames "
            "with the chunk before",
        )
        seen = latents[:, :, -length * cfg.chunks :]
        if seen.shape[2] < length * cfg.chunks:
            seen = torch.cat([seen[:, :, :1].expand(-1, -1, length, -1, -1), seen], 2)
        x = F.gelu(self.conv1(seen.to(self.conv1.weight.dtype).flatten(1, 2)))
        x = F.gelu(self.conv2(x)).flatten(1)
        return F.gelu(self.fc1(x))

    def forward(self, latents: Tensor) -> dict[str, Any]:
        """Predictions; latents as in `features`.

        Returns:
            "events": name -> probability (B,); "end": (B,) probability that the episode ends in
            this chunk; "reward": (B,) expected reward.
        """
        cfg = self.config
        features = self.features(latents)
        probability = torch.sigmoid(self.fc2(features).float())
        events = dict(zip(cfg.events, probability.unbind(1), strict=True))
        end = events[cfg.end] if cfg.end else torch.zeros_like(probability[:, 0])
        if cfg.own is None:
            reward = probability @ probability.new_tensor(cfg.reward)
        else:
            mean, spread = cfg.own
            reward = mean + spread * self.value(features).float().squeeze(1)
        return {"events": events, "end": end, "reward": reward}
