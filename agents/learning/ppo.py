"""Stable-Baselines3's PPO around our network, and its state as plain tensors."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from magi_world.agents.learning.config import TrainAgentConfig
from magi_world.agents.learning.network import Eyes, NetworkConfig
from magi_world.agents.learning.places import Place

try:
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.logger import Logger, configure
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
except ImportError as error:
    raise ImportError(
        "training an agent needs Stable-Baselines3; pip install 'magi-world[sb3]'"
    ) from error

__all__ = [
    "PPO",
    "BaseCallback",
    "learner_tensors",
    "make_learner",
    "policy_weights",
    "set_learner_tensors",
]

_FLOOR = 0.1  # share of the learning rate that is left at the end


class EyesExtractor(BaseFeaturesExtractor):
    """`Eyes` as Stable-Baselines3 takes them; it has brought pictures to float (B, 3 k, H, W)."""

    def __init__(self, observation_space: Any, network: NetworkConfig) -> None:
        super().__init__(observation_space, network.features)
        self.eyes = Eyes(network)

    def forward(self, observations: Tensor) -> Tensor:
        """Features (B, D)."""
        # Stable-Baselines3 gives a transposed view, and the last bit of a convolution depends on
        # strides: a run that goes on from a saved picture would not be the same.
        return self.eyes(observations.contiguous())


def make_learner(config: TrainAgentConfig, place: Place, tensorboard: Path | None = None) -> PPO:
    """PPO at its first step; seeds torch, NumPy and Python, from which it draws.

    Args:
        tensorboard: where its curves go, if the package tensorboard is there.
    """
    network = NetworkConfig(place.frame_size, config.frames, len(place.commands), config.features)
    learner = PPO(
        "CnnPolicy",
        place.vec,
        learning_rate=lambda left: config.learning_rate * (_FLOOR + (1 - _FLOOR) * left),
        n_steps=config.rollout,
        batch_size=config.batch,
        n_epochs=config.epochs,
        gamma=config.gamma,
        gae_lambda=config.gae,
        clip_range=config.clip,
        ent_coef=config.entropy,
        vf_coef=config.value,
        max_grad_norm=config.max_norm,
        policy_kwargs={
            "features_extractor_class": EyesExtractor,
            "features_extractor_kwargs": {"network": network},
            "net_arch": [],
        },
        seed=config.seed,
        device=place.device,
    )
    wanted = tensorboard is not None and importlib.util.find_spec("tensorboard") is not None
    learner.set_logger(configure(str(tensorboard), ["tensorboard"]) if wanted else Logger(None, []))
    return learner


def policy_weights(learner: PPO) -> dict[str, Tensor]:
    """Weights of the policy under the names of `PolicyNet`; copies."""
    policy: Any = learner.policy
    parts = {
        "eyes": policy.features_extractor.eyes,
        "actor": policy.action_net,
        "critic": policy.value_net,
    }
    return {
        f"{part}.{name}": value.detach().cpu().clone()
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }


def learner_tensors(learner: PPO) -> dict[str, Tensor]:
    """Weights and the optimiser's moments; copies."""
    policy = learner.policy
    tensors = {f"weight.{n}": p.detach().cpu().clone() for n, p in policy.named_parameters()}
    for index, state in policy.optimizer.state_dict()["state"].items():
        for name, value in state.items():
            tensors[f"adam.{index}.{name}"] = value.detach().cpu().clone()
    return tensors


def set_learner_tensors(learner: PPO, tensors: dict[str, Tensor]) -> None:
    """Put back what `learner_tensors` gave.

    Raises:
        ValueError: they are of another network.
    """
    policy = learner.policy
    stored = {n.removeprefix("weight."): t for n, t in tensors.items() if n.startswith("weight.")}
    own = dict(policy.named_parameters())
    if {n: t.shape for n, t in stored.items()} != {n: p.shape for n, p in own.items()}:
        raise ValueError("the saved state is of another network; use another folder")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(stored[name])
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("adam."):
            _, index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = value.clone()
    groups = policy.optimizer.state_dict()["param_groups"]
    policy.optimizer.load_state_dict({"state": moments, "param_groups": groups})
