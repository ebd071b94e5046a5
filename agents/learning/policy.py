"""A trained policy: its files, and the agent that it is.

A folder holds ``policy.json`` (what it sees, what it can say, how it came about) and
``policy.safetensors`` (the weights). Nothing in them is executed when they are read.

Shapes: T video frames, H, W pixels, k frames in a picture, A commands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from dataclasses import field as default
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from magi_world.agents.learning.config import write_json
from magi_world.agents.learning.network import NetworkConfig, PolicyNet
from magi_world.agents.protocol import info_field
from magi_world.envs.wrappers import Batch, Stacking
from magi_world.io.records import build, field, read_json
from magi_world.io.weights import load_into, save_tensors

SCHEMA = 1
RECORD, WEIGHTS = "policy.json", "policy.safetensors"


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
    training: Mapping[str, Any] = default(default_factory=dict)
    figures: Mapping[str, Any] = default(default_factory=dict)

    @property
    def network(self) -> NetworkConfig:
        """Sizes of its network."""
        frames = self.stacking.frames
        return NetworkConfig(self.frame_size, frames, len(self.commands), self.features)


def save_policy(folder: Path, record: PolicyRecord, weights: Mapping[str, Tensor]) -> None:
    """Write both files; the JSON comes last and carries the weights' checksum."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / WEIGHTS, weights)
    checksum = _checksum(folder / WEIGHTS)
    write_json(folder / RECORD, {"schema": SCHEMA, **asdict(record), "weights": checksum})


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
        schema = field(stored, "schema", int, str(path))
        checksum = field(stored, "weights", str, str(path))
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
        """The next command; see `magi_world.agents.protocol.Agent`.

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
