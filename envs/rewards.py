"""What a chunk is worth, and whether the episode ends with it.

Shapes: B worlds, C latent channels, t latent frames, h, l latent size, m samples.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from magi_world.envs.state import rows_of
from magi_world.envs.text_goal import ImageText, OpenClip
from magi_world.world.chunk import Chunk
from magi_world.world.world import World

RewardFunction = Callable[[Chunk, dict[str, Any]], tuple[float, bool]]
RewardLike = Any  # None, str, a RewardFunction, a Reward, or a list or mapping of these


class Heads(Protocol):
    """Predictors that a world may carry in ``world.parts.heads``."""

    def __call__(self, latents: Tensor) -> Mapping[str, Any]:
        """For each chunk of latents (B, C, t, h, l), scaled as in `Chunk.latents`; where the
        attribute ``chunks`` is 2, also twice as long, the chunk before in front (`Chunk.seen`).

        Returns:
            "reward": (B,).    "end": (B,) probability that the episode ends in this chunk.
            "events": name -> (B,), anything else that the world predicts.
        """


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the heads say, in host memory: (B,) float64 each."""

    reward: np.ndarray
    end: np.ndarray
    events: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Prediction:
        events = {name: _host(value) for name, value in said.get("events", {}).items()}
        return cls(_host(said["reward"]), _host(said["end"]), events)

    def of(self, row: int) -> dict[str, float]:
        """Events and end probability of one world, for `info`."""
        return {"end": float(self.end[row])} | {k: float(v[row]) for k, v in self.events.items()}


@dataclass(frozen=True, eq=False)
class Moment:
    """What a reward may look at: the newest chunk of every world.

    infos, seeds: one per world.    predicted: None where the world has no heads.
    """

    chunk: Chunk
    infos: Sequence[dict[str, Any]]
    seeds: Sequence[int]
    predicted: Prediction | None = None


@dataclass(frozen=True, eq=False)
class Score:
    """reward: (B,) float64.    ended: (B,) bool, the episode is over for a reason of its own.

    parts: name -> (B,), what the reward was added up from.
    """

    reward: np.ndarray
    ended: np.ndarray
    parts: dict[str, np.ndarray] = field(default_factory=dict)


@runtime_checkable
class Reward(Protocol):
    """Scores all worlds at once. ``name`` is that of its term in `info`; ``needs_pixels`` says
    whether chunks must be decoded for it."""

    @property
    def name(self) -> str: ...

    @property
    def needs_pixels(self) -> bool: ...

    def score(self, moment: Moment) -> Score:
        """The score of every world."""


class NoReward:
    """Always 0, never an end."""

    name, needs_pixels = "none", False
    terms: tuple[str, ...] = ()

    def score(self, moment: Moment) -> Score:
        count = len(moment.infos)
        return Score(np.zeros(count), np.zeros(count, bool))


@dataclass(frozen=True)
class LearnedReward:
    """What the world's own heads predict.

    end_threshold: the episode ends where the predicted probability of an end reaches this.
    sample_end: instead, it ends with that probability, drawn from the world's seed and the
        chunk's index: an agent cannot live on just below the threshold.
    """

    end_threshold: float = 0.5
    sample_end: bool = False
    name: str = "learned"
    needs_pixels: bool = False

    def score(self, moment: Moment) -> Score:
        if moment.predicted is None:
            raise ValueError("reward is 'learned', but this world has no reward heads")
        reward, end = moment.predicted.reward, moment.predicted.end
        limits = np.full(len(end), self.end_threshold)
        if self.sample_end:
            places = zip(moment.seeds, moment.chunk.index, strict=True)
            limits = np.array([_chance(seed, index) for seed, index in places])
        return Score(reward, end >= limits, {self.name: reward})


def _chance(seed: int, index: int) -> float:
    """A number in (0, 1] that depends on both and on nothing else."""
    digest = hashlib.blake2b(f"{seed}:{index}:end".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") + 1) / 2**64


class FunctionReward:
    """A function ``(Chunk, info) -> (reward, terminated)``, called once per world.

    The chunk has that world's row only. Its frames are decoded, unless the function has an
    attribute ``needs_pixels = False``.
    """

    def __init__(self, function: RewardFunction) -> None:
        self.function = function
        self.name: str = getattr(function, "__name__", type(function).__name__)
        self.needs_pixels: bool = getattr(function, "needs_pixels", True)

    def score(self, moment: Moment) -> Score:
        """What the function says; ValueError if that is no finite number and a bool."""
        pairs = [
            self._checked(self.function(rows_of(moment.chunk, [row]), info))
            for row, info in enumerate(moment.infos)
        ]
        rewards = np.array([reward for reward, _ in pairs], np.float64)
        return Score(rewards, np.array([end for _, end in pairs], bool), {self.name: rewards})

    def _checked(self, result: Any) -> tuple[float, bool]:
        try:
            value, end = result
            reward = float(value)
        except (TypeError, ValueError):
            reward, end = math.nan, None
        if not math.isfinite(reward) or not isinstance(end, bool | np.bool_):
            raise ValueError(
                f"the reward function {self.name} returned {result!r:.80}; it must return (reward, "
                "terminated), a finite number and a bool"
            )
        return reward, bool(end)


class TextGoal:
    """Cosine between a chunk's last frame and a text, in [-1, 1].

    Args:
        goal: what should be seen, e.g. "a photo of a red door".
        model: by default open_clip's ``ViT-B-32``, loaded now.
        device: of that default model.
        reached: the episode ends where the cosine reaches this; None never ends it.
    """

    needs_pixels = True

    def __init__(
        self,
        goal: str,
        model: ImageText | None = None,
        device: str | torch.device = "cpu",
        reached: float | None = None,
    ) -> None:
        self.goal, self.reached = goal, reached
        self.name = f"text:{goal}"
        self.model = OpenClip.load(device=device) if model is None else model
        self._wanted = self.model.text(goal)

    def score(self, moment: Moment) -> Score:
        last = moment.chunk.decoded[:, -1].cpu().numpy()
        cosine = (self.model.images(last) @ self._wanted).cpu().numpy().astype(np.float64)
        ended = np.zeros(len(cosine), bool) if self.reached is None else cosine >= self.reached
        return Score(cosine, ended, {self.name: cosine})


@dataclass(frozen=True)
class UncertaintyConfig:
    """noise: standard deviation of what is added to the latents.    samples: m, how often."""

    noise: float = 0.2
    samples: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.noise > 0:
            raise ValueError(f"UncertaintyConfig.noise is {self.noise}; it must be above 0")
        if self.samples < 2:
            raise ValueError(f"UncertaintyConfig.samples is {self.samples}; it must be at least 2")


class UncertaintyPenalty:
    """A price on rewards that the heads are not sure of, so that an agent does not hunt their
    mistakes: minus the standard deviation of the predicted reward over noisy copies of the latents.

    The heads are one network, not several whose disagreement could be asked for. What can be asked
    is how much their reward moves when the latents move a little: where a real reward is seen,
    little; where the latents are off what the heads were trained on, much. The noise is the same
    for all chunks: the penalty of a chunk depends on nothing but the chunk.
    """

    name, needs_pixels = "uncertainty", False

    def __init__(self, heads: Heads, config: UncertaintyConfig | None = None) -> None:
        self.heads, self.config = heads, config or UncertaintyConfig()

    @torch.inference_mode()
    def score(self, moment: Moment) -> Score:
        """At most 0, and never an end."""
        latents = moment.chunk.seen.float()
        noisy = latents[None] + self._noise(latents)[:, None]
        said = self.heads(noisy.flatten(0, 1))["reward"]
        spread = torch.as_tensor(said).float().unflatten(0, noisy.shape[:2]).std(0)
        penalty = -_host(spread)
        return Score(penalty, np.zeros(len(penalty), bool), {self.name: penalty})

    def _noise(self, latents: Tensor) -> Tensor:
        """(m, C, t, h, l), half of it the other half's opposite: it has no mean to mistake."""
        cfg = self.config
        generator = torch.Generator().manual_seed(cfg.seed)
        half = torch.randn((-(-cfg.samples // 2), *latents.shape[1:]), generator=generator)
        both = torch.cat([half, -half])[: cfg.samples]
        return (cfg.noise * both).to(latents.device)


class SumReward:
    """Weighted sum of rewards; the episode ends where any of them ends it. `Score.parts` holds the
    terms without their weights."""

    def __init__(self, weighted: Sequence[tuple[Reward, float]]) -> None:
        self._weighted = tuple(weighted)
        self.needs_pixels = any(reward.needs_pixels for reward, _ in weighted)
        self.name = " + ".join(reward.name for reward, _ in weighted)
        names: dict[str, None] = {}
        for reward, _ in weighted:  # a name that comes again is numbered
            name, number = reward.name, 2
            while name in names:
                name, number = f"{reward.name} {number}", number + 1
            names[name] = None
        self.terms = tuple(names)

    def score(self, moment: Moment) -> Score:
        total, ended = np.zeros(len(moment.infos)), np.zeros(len(moment.infos), bool)
        parts: dict[str, np.ndarray] = {}
        for name, (reward, weight) in zip(self.terms, self._weighted, strict=True):
            score = reward.score(moment)
            total = total + weight * score.reward
            ended = ended | score.ended
            parts[name] = score.reward
        return Score(total, ended, parts)


def reward_terms(reward: Reward) -> tuple[str, ...]:
    """What ``info["rewards"]`` names: the reward itself, unless it has ``terms`` of its own."""
    return getattr(reward, "terms", (reward.name,))


def make_reward(value: RewardLike, world: World) -> Reward:
    """A reward from what a user gives.

    Args:
        value: None ("learned" where the world has heads, else "none"), "none", "learned",
            "text:<goal>" (`TextGoal`), a function `(Chunk, info) -> (reward, terminated)`, a
            `Reward`, a list of these (their sum), or a mapping of them to weights.

    Raises:
        ValueError: anything else, or "learned" for a world without heads.
        ImportError: a text goal without the package open_clip.
    """
    headless = world.parts.heads is None
    if value is None:
        return NoReward() if headless else LearnedReward()
    if isinstance(value, Mapping):
        return SumReward([(make_reward(v, world), _weight(w)) for v, w in value.items()])
    if isinstance(value, list | tuple) and value:
        return SumReward([(make_reward(v, world), 1.0) for v in value])
    learned = isinstance(value, LearnedReward) or (isinstance(value, str) and value == "learned")
    if headless and learned:
        raise ValueError(
            f"reward is 'learned', but the world {world.spec.name!r} has no reward heads; "
            "give 'none', 'text:...' or a function"
        )
    if isinstance(value, str):
        if value in ("none", "learned"):
            return NoReward() if value == "none" else LearnedReward()
        if value.startswith("text:") and value[5:].strip():
            return TextGoal(value[5:].strip(), device=world.device)
    elif isinstance(value, Reward) and not isinstance(value, type):
        return value
    elif callable(value):
        return FunctionReward(value)
    raise ValueError(
        f"reward is {value!r:.80}; it must be 'learned', 'none', 'text:<goal>', a function "
        "(Chunk, info) -> (reward, terminated), a list of these, or a mapping of these to weights"
    )


def _weight(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise ValueError(f"the weight of a reward is {value!r}; it must be a finite number")


def _host(values: Any) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.float().cpu().numpy()
    return np.asarray(values, np.float64)
