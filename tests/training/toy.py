"""A simulator of a few lines (a bar that can be pushed), and tiny models to go with it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from magi_world.config import DiTConfig, VAEConfig
from magi_world.simulator import EventConfig, RecordConfig


class Bar(gym.Env):
    """action 0 stay, 1 left, 2 right; touching a side counts as a hit; ``most`` of them, or ``age``
    steps, end an episode."""

    def __init__(self, render_mode: str | None = "rgb_array", most: int = 6, age: int = 40) -> None:
        self.action_space = gym.spaces.Discrete(3)
        self.observation_space = gym.spaces.Dict(
            {"hits": gym.spaces.Box(0, 1000, (1,)), "screen": gym.spaces.Box(0, 255, (16, 16, 3))}
        )
        self.render_mode, self.most, self.oldest = render_mode, most, age

    def _see(self) -> dict[str, Any]:
        return {"hits": np.array([self.hits], np.float32), "screen": self.render()}

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.at, self.hits, self.age = int(self.np_random.integers(4, 12)), 0, 0
        return self._see(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.at += (0, -1, 1)[action]
        if not 0 <= self.at <= 15:
            self.hits += 1
            self.at = min(max(self.at, 0), 15)
        self.age += 1
        return self._see(), 1.0, self.hits >= self.most, self.age >= self.oldest, {}

    def render(self) -> np.ndarray:
        picture = np.full((16, 16, 3), 40, np.uint8)
        picture[:, self.at] = (250, 200, 30)
        picture[8:] //= 2
        return picture


class Limited(Bar):
    """Says that an episode is over by itself when its time is up, as some simulators do."""

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        seen, reward, ended, cut, info = super().step(action)
        return seen, reward, ended or cut, cut, info


class Roll:
    """Draws commands at random, so that both left and right occur."""

    def __init__(self, env: gym.Env, commands: list[str], rng: np.random.Generator) -> None:
        self.commands, self.rng, self.resets = commands, rng, 0

    def reset(self) -> None:
        self.resets += 1

    def command(self) -> str:
        return str(self.rng.choice(self.commands))


class Silent(Roll):
    """A policy that says nothing."""

    def command(self) -> str:
        return None  # type: ignore[return-value]


def make(most: int = 6, age: int = 40) -> Bar:
    """The environment, for a configuration."""
    return Bar(most=most, age=age)


def make_limited() -> Limited:
    """The environment, for a configuration."""
    return Limited()


COMMANDS = ("stay", "go left", "go right")


def record_config(**changes: object) -> RecordConfig:
    """90 chunks of the bar in 3 shards, recorded in this process's children."""
    values: dict[str, object] = {
        "env": "toy:make()",
        "actions": dict(zip(COMMANDS, (0, 1, 2), strict=True)),
        "policy": "toy:Roll",
        "frame_key": "screen",
        "frame_size": (16, 16),
        "frames_per_chunk": 8,
        "chunks": 90,
        "chunks_per_shard": 30,
        "held_out_shards": 1,
        "events": {"hit": EventConfig("hits", 0)},
        "processes": 1,
        "mirror": {"left": "right"},
        "seed": 4,
    }
    return RecordConfig(**{**values, **changes})  # type: ignore[arg-type]


def tiny_vae(**changes: object) -> VAEConfig:
    values: dict[str, object] = {
        "width": 48,
        "depth": 1,
        "heads": 4,
        "latent_channels": 6,
        "video_size": 16,
        "video_length": 8,
        "final_proj": True,
        "scale_factor": 1.0,
    }
    return VAEConfig(**{**values, **changes})  # type: ignore[arg-type]


def tiny_dit(**changes: object) -> DiTConfig:
    values: dict[str, object] = {
        "layers": 2,
        "hidden": 32,
        "ffn": 64,
        "heads": 4,
        "kv_groups": 2,
        "head_dim": 8,
        "latent_channels": 6,
        "caption_channels": 8,
        "caption_length": 60,
    }
    return DiTConfig(**{**values, **changes})  # type: ignore[arg-type]
