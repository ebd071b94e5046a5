"""The policy's network, in torch alone.

Shapes: B pictures, H, W pixels, k frames in a picture, A commands, D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

CHANNELS = (16, 32, 64, 64)


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes: (height, width) of the picture, k frames on its channels, A commands, D features."""

    frame_size: tuple[int, int]
    frames: int
    commands: int
    features: int = 256

    def __post_init__(self) -> None:
        for name in ("frames", "commands", "features"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"NetworkConfig.{name} is {getattr(self, name)}; it must be at least 1"
                )
        if min(self.frame_size) < 1:
            raise ValueError(
                f"NetworkConfig.frame_size is {self.frame_size}; both must be at least 1"
            )


class Eyes(nn.Sequential):
    """Pictures float (B, 3 k, H, W) in 0 .. 1 to features (B, D).

    Four convolutions that halve the picture. The first ones see small patches: at 64 pixels, what
    is worth walking to is a few pixels wide, which the usual 8x8 patches at stride 4 wash out.
    """

    def __init__(self, config: NetworkConfig) -> None:
        layers: list[nn.Module] = []
        before, sides = 3 * config.frames, config.frame_size
        for channels in CHANNELS:
            layers += [nn.Conv2d(before, channels, 3, 2, 1), nn.ReLU()]
            before, sides = channels, ((sides[0] + 1) // 2, (sides[1] + 1) // 2)
        flat = before * sides[0] * sides[1]
        super().__init__(*layers, nn.Flatten(), nn.Linear(flat, config.features), nn.ReLU())


class PolicyNet(nn.Module):
    """What each command is worth saying, and what the situation is worth."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.eyes = Eyes(config)
        self.actor = nn.Linear(config.features, config.commands)
        self.critic = nn.Linear(config.features, 1)

    @torch.inference_mode()
    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures uint8 (B, H, W, 3 k) to logits of the commands (B, A) and values (B,).

        Raises:
            ValueError: pictures of another shape.
        """
        cfg = self.config
        expected = (*cfg.frame_size, 3 * cfg.frames)
        if tuple(pictures.shape[1:]) != expected:
            raise ValueError(
                f"pictures have shape {tuple(pictures.shape)}; they must be (B, {expected})"
            )
        weight = self.actor.weight
        planes = pictures.to(weight.device).permute(0, 3, 1, 2).to(weight.dtype) / 255
        features = self.eyes(planes.contiguous())
        return self.actor(features), self.critic(features).squeeze(1)
