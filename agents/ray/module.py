"""Our policy's network as RLlib takes it.

Shapes: B pictures, H, W pixels, k frames in a picture, A commands, D features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from magi_world.agents.learning.network import Eyes, NetworkConfig

try:
    from ray.rllib.core.columns import Columns
    from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
    from ray.rllib.core.rl_module.torch import TorchRLModule
except ImportError as error:
    raise ImportError(
        "training with RLlib needs Ray; pip install 'magi-world[ray]' (into an environment of its "
        "own: it pins gymnasium)"
    ) from error


class EyesModule(TorchRLModule, ValueFunctionAPI):
    """`PolicyNet`'s parts under its names; it is told its sizes by ``model_config["network"]``."""

    def setup(self) -> None:
        """Build the parts."""
        sizes = dict(self.model_config["network"])
        network = NetworkConfig(**{**sizes, "frame_size": tuple(sizes["frame_size"])})
        self.eyes = Eyes(network)
        self.actor = nn.Linear(network.features, network.commands)
        self.critic = nn.Linear(network.features, 1)
        # As Stable-Baselines3 begins: all commands are about equally likely.
        nn.init.orthogonal_(self.actor.weight, 0.01)
        nn.init.orthogonal_(self.critic.weight, 1.0)
        for layer in (self.actor, self.critic):
            nn.init.zeros_(layer.bias)

    def _forward(self, batch: dict[str, Any], **unused: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.actor(self._see(batch))}

    def _forward_train(self, batch: dict[str, Any], **unused: Any) -> dict[str, Any]:
        features = self._see(batch)
        return {
            Columns.ACTION_DIST_INPUTS: self.actor(features),
            Columns.EMBEDDINGS: features,
        }

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        """What the situations are worth, (B,)."""
        features = self._see(batch) if embeddings is None else embeddings
        return self.critic(features).squeeze(-1)

    def _see(self, batch: dict[str, Any]) -> Tensor:
        """uint8 (B, H, W, 3 k) to features (B, D)."""
        pictures = batch[Columns.OBS].permute(0, 3, 1, 2)
        return self.eyes(pictures.to(self.actor.weight.dtype).contiguous() / 255)


def policy_weights(module: EyesModule) -> dict[str, Tensor]:
    """Weights under the names of `PolicyNet`; copies."""
    parts = {"eyes": module.eyes, "actor": module.actor, "critic": module.critic}
    return {
        f"{part}.{name}": value.detach().cpu().clone()
        for part, own in parts.items()
        for name, value in own.state_dict().items()
    }


@torch.no_grad()
def set_policy_weights(module: EyesModule, weights: dict[str, Tensor]) -> None:
    """Put back what `policy_weights` gave.

    Raises:
        ValueError: they are of another network.
    """
    own = dict(module.named_parameters())
    if {n: t.shape for n, t in weights.items()} != {n: p.shape for n, p in own.items()}:
        raise ValueError("the saved state is of another network; use another folder")
    for name, parameter in own.items():
        parameter.copy_(weights[name])
