"""Everything that decides a training run, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from magi_world.config import DEFAULT_WORLD

if TYPE_CHECKING:
    from magi_world.envs.wrappers import Stacking

# What may differ between a run and its continuation: it decides no number that is learnt.
FREE = ("device", "save_seconds", "gpus_per_runner")


@dataclass(frozen=True)
class TrainAgentConfig:
    """How a policy is trained; the defaults are meant for the few steps that a laptop gives.

    Where:
        world: what `magi_world.load_world` takes.
        real: a training configuration (YAML); its simulator takes the world's place.
        starts: folder of recorded shards; episodes begin from ``num_starts`` clips of it as well.
        starts_before: an event of that recording; only clips that it soon follows, so that there is
            something to be found before a dream goes astray.
        noise_scale, denoise_steps, dtype: of the world; None is its own. bfloat16 saves a third of
            the time on CPUs that know it.
        uncertainty: weight of the penalty for rewards that the heads are not sure of.
        sample_end: episodes end with the predicted probability, not at one half.
        horizon: chunks of an episode, after which it is cut off and its value estimated. Short,
            because dreams go astray with time.
        device: of world and policy; None is the GPU where there is one.
    What the policy sees and says:
        commands: what it may say; None is all that the world obeys. In a world whose commands are
            goals ("go to the medkit"), moves alone leave it to the policy to find the way.
        frames, every: as in `magi_world.envs.wrappers.ChunkToImage`. Two frames a few apart show
            motion.
        features: width of the network's last layer.
    PPO (Schulman et al., 2017, arXiv 1707.06347):
        steps: chunks in all, over all worlds; rounded up to whole updates.
        rollout: chunks of each world between two updates.
        gamma: 0.95 looks about 20 chunks ahead, as far as a dream is to be trusted.
        gae: 0.9; less than usual, as the value is learnt faster than the rewards are seen.
        epochs, batch, clip, entropy, value, max_norm, learning_rate (falls to a tenth).
    Engine:
        engine: "sb3", Stable-Baselines3 in this process, or "rllib", Ray's, over many.
        env_runners: rllib only; processes with ``num_envs`` worlds each; 0 is this one alone.
        gpus_per_runner: rllib only; a share of a card for each of them.
    checkpoints: policies kept on the way, the last one included.
    save_seconds: at most this long is lost when the process is killed.
    """

    world: str = DEFAULT_WORLD
    real: str | None = None
    starts: str | None = None
    num_starts: int = 512
    starts_before: str | None = None
    num_envs: int = 16
    horizon: int = 32
    noise_scale: float = 1.0
    denoise_steps: int | None = None
    dtype: str | None = None
    uncertainty: float = 0.0
    sample_end: bool = True
    commands: tuple[str, ...] | None = None
    frames: int = 2
    every: int = 4
    features: int = 256
    steps: int = 40_960
    rollout: int = 32
    epochs: int = 4
    batch: int = 128
    learning_rate: float = 5e-4
    gamma: float = 0.95
    gae: float = 0.9
    clip: float = 0.2
    entropy: float = 0.01
    value: float = 0.5
    max_norm: float = 0.5
    seed: int = 0
    checkpoints: int = 8
    save_seconds: float = 120.0
    device: str | None = None
    engine: str = "sb3"
    env_runners: int = 0
    gpus_per_runner: float = 0.0

    def __post_init__(self) -> None:
        least = {
            "num_starts": 1, "num_envs": 1, "horizon": 1, "features": 1, "steps": 1, "rollout": 1,
            "epochs": 1, "batch": 2, "seed": 0, "checkpoints": 1, "uncertainty": 0, "entropy": 0,
            "value": 0, "save_seconds": 0, "env_runners": 0, "gpus_per_runner": 0,
        }  # fmt: skip
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {bound}")
        for name in ("learning_rate", "clip", "max_norm", "noise_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("gamma", "gae"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 .. 1")
        if self.update_steps % self.batch:
            raise ValueError(
                f"batch is {self.batch}; it must divide the chunks of an update "
                f"({self.update_steps}: num_envs * rollout, of all runners)"
            )
        if self.dtype not in (None, "float32", "bfloat16"):
            raise ValueError(f"dtype is {self.dtype!r}; it must be 'float32' or 'bfloat16'")
        if self.starts_before is not None and self.starts is None:
            raise ValueError(
                f"starts_before is {self.starts_before!r}, but starts is None; it chooses clips "
                "of a recording"
            )
        if self.real is not None and (self.starts is not None or self.uncertainty):
            name = "starts" if self.starts is not None else "uncertainty"
            raise ValueError(f"{name} is {getattr(self, name)}; it is for a world, but real is set")
        if self.engine not in ("sb3", "rllib"):
            raise ValueError(f"engine is {self.engine!r}; it must be 'sb3' or 'rllib'")
        for name in ("env_runners", "gpus_per_runner"):
            if self.engine == "sb3" and getattr(self, name):
                raise ValueError(f"{name} is {getattr(self, name)}; it is for engine 'rllib'")
        if self.engine == "rllib" and self.real is not None:
            raise ValueError("engine is 'rllib', but real is set; it trains in worlds alone")
        if self.commands is not None and len(set(self.commands)) != max(2, len(self.commands)):
            raise ValueError(f"commands is {self.commands}; it must be two or more different ones")
        _ = self.stacking

    @property
    def stacking(self) -> Stacking:
        from magi_world.envs.wrappers import Stacking  # late: it loads torch

        return Stacking(self.frames, self.every)

    @property
    def update_steps(self) -> int:
        """Chunks between two updates, over all worlds."""
        return self.num_envs * self.rollout * max(1, self.env_runners)

    @property
    def total_steps(self) -> int:
        """``steps``, rounded up to whole updates."""
        return -(-self.steps // self.update_steps) * self.update_steps
