"""A trained policy: its network, its files, and the agent that it is.

A folder holds ``policy.json`` (what it sees, what it can say, how it came about) and
``policy.safetensors`` (the weights). Nothing in them is executed when they are read.

Shapes: B pictures, T video frames, H, W pixels, k frames in a picture, A commands, D features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from magi_world.agents.basic import info_field
from magi_world.envs.wrappers import Batch, Stacking
from magi_world.io.files import write_text
from magi_world.io.records import build, field_of, read_json
from magi_world.io.safetensors_io import load_into, save_tensors

SCHEMA = 1
RECORD, WEIGHTS = "policy.json", "policy.safetensors"
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


@dataclass(frozen=True)
class PolicyRecord:
    """What a policy's JSON says.

    commands: what it can say, in the order of the network's outputs.
    stacking: how its picture is made of frames of ``frame_size`` (H, W).
    world, fingerprint: what it was trained in; "" for the simulator's fingerprint.
    steps: chunks that it was trained on.    training: the options of that training.
    figures: mean return, ... of the training's last episodes.
    """

    commands: tuple[str, ...]
    frame_size: tuple[int, int]
    stacking: Stacking
    features: int
    world: str = ""
    fingerprint: str = ""
    steps: int = 0
    training: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def network(self) -> NetworkConfig:
        frames = self.stacking.frames
        return NetworkConfig(self.frame_size, frames, len(self.commands), self.features)


def save_policy(folder: Path, record: PolicyRecord, weights: Mapping[str, Tensor]) -> None:
    """Write both files; the JSON comes last and carries the weights' checksum."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / WEIGHTS, weights)
    checksum = _checksum(folder / WEIGHTS)
    stored = {"schema": SCHEMA, **asdict(record), "weights": checksum}
    write_text(folder / RECORD, json.dumps(stored, indent=1) + "\n")


def policy_record(folder: str | Path) -> PolicyRecord:
    """What a policy's JSON says; its weights are not read.

    Raises:
        As `read_policy`.
    """
    return _read_record(Path(folder) / RECORD)[0]


def read_policy(folder: str | Path) -> tuple[PolicyRecord, PolicyNet]:
    """A policy's record, and its network on the CPU.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: damaged files, another schema, or weights that do not fit the record.
    """
    path = Path(folder) / RECORD
    record, checksum = _read_record(path)
    try:
        with torch.device("meta"):
            net = PolicyNet(record.network)
    except (ValueError, RuntimeError) as error:  # torch's, of sizes that no tensor has
        raise ValueError(f"{path} is no policy: {error}") from error
    weights = path.with_name(WEIGHTS)
    net = load_into(net, weights)
    if _checksum(weights) != checksum:
        raise ValueError(f"{weights} is not the file that {path.name} was written for")
    return record, net.requires_grad_(False)


def _read_record(path: Path) -> tuple[PolicyRecord, str]:
    """The record, and the checksum of the weights that belong to it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} is no policy: there is no {RECORD} in it")
    try:
        stored = read_json(path)
        schema = field_of(stored, "schema", int, str(path))
        checksum = field_of(stored, "weights", str, str(path))
        if schema != SCHEMA:
            raise ValueError(f"{path} has schema {schema}; this package reads {SCHEMA}")
        rest = {name: v for name, v in stored.items() if name not in ("schema", "weights")}
        return build(PolicyRecord, rest, str(path)), checksum
    except ValueError as error:
        raise ValueError(f"{path} is no policy: {error}") from error


class PolicyAgent:
    """A trained policy as an agent: it sees chunks (T, H, W, 3) and answers with commands.

    What it says depends on its weights, its seed, the frames and the chunk's index, so that a
    replayed episode meets the same answers again.
    """

    def __init__(
        self, record: PolicyRecord, net: PolicyNet, seed: int = 0, sample: bool = True
    ) -> None:
        """Args:
        sample: draw commands with the policy's probabilities, as it did while it was trained;
            otherwise the likeliest is said, always.
        """
        self.record, self.net, self.seed, self.sample = record, net, seed, sample
        self._kept: Batch | None = None
        self._index = 0

    @classmethod
    def load(cls, folder: str | Path, seed: int = 0, sample: bool = True) -> PolicyAgent:
        """From a folder of `magi-world train-agent`, or one of its checkpoints.

        Raises:
            As `read_policy`.
        """
        return cls(*read_policy(folder), seed, sample)

    def act(self, observation: np.ndarray, info: Mapping[str, Any]) -> str:
        """The next command; see `magi_world.agents.basic.Agent`.

        Raises:
            ValueError: frames of another size, or ``info`` without ``chunk``.
        """
        index = int(info_field(info, "chunk"))
        chances = self.probabilities(observation, index)
        if not self.sample:
            return self.record.commands[int(chances.argmax())]
        digest = hashlib.blake2b(f"{self.seed}:{index}".encode(), digest_size=8).digest()
        drawn = int.from_bytes(digest, "little") / 2**64
        number = int(np.searchsorted(chances.cumsum(), drawn, side="right"))
        return self.record.commands[min(number, len(chances) - 1)]

    def probabilities(self, observation: np.ndarray, index: int) -> np.ndarray:
        """(A,) float64, how likely each command is after the chunk of this index."""
        self._see(observation, index)
        assert self._kept is not None, "it has just been seen"
        picture = torch.from_numpy(np.asarray(self.record.stacking.picture(self._kept)))
        logits, _ = self.net(picture)
        return logits[0].double().softmax(0).cpu().numpy()

    def _see(self, observation: np.ndarray, index: int) -> None:
        """Frames of earlier chunks are kept as long as the chunks follow one another."""
        height, width = self.record.frame_size
        shape, dtype = np.shape(observation), getattr(observation, "dtype", None)
        if len(shape) != 4 or shape[1:] != (height, width, 3) or dtype != np.uint8:
            raise ValueError(
                f"the observation is {dtype} of shape {shape}; this policy sees uint8 chunks "
                f"(T, {height}, {width}, 3)"
            )
        seen, stacking = observation[None], self.record.stacking
        if self._kept is not None and index == self._index + 1:
            self._kept = stacking.push(self._kept, seen)
        else:
            self._kept = stacking.begin(seen)
        self._index = index


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
