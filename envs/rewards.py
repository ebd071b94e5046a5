"""What a chunk is worth, and whether the episode ends with it.

Shapes: B worlds, C latent channels, t latent frames, h, l latent size.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from magi_world.envs.chunks import rows_of
from magi_world.envs.score import Moment, Reward, Score
from magi_world.world.chunk import Chunk
from magi_world.world.world import World

RewardFunction = Callable[[Chunk, dict[str, Any]], tuple[float, bool]]
RewardLike = Any  # None, str, a RewardFunction, a Reward, or a list or mapping of these


class NoReward:
    """Always 0, never an end."""

    name, needs_pixels = "none", False
    terms: tuple[str, ...] = ()

    def score(self, moment: Moment) -> Score:
        """Zeros."""
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
        """The predicted reward and end.

        Raises:
            ValueError: the world has no heads.
        """
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
        """What the function says.

        Raises:
            ValueError: it returned something else than a finite number and a bool.
        """
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


class SumReward:
    """Weighted sum of rewards; the episode ends where any of them ends it."""

    def __init__(self, terms: Sequence[tuple[Reward, float]]) -> None:
        self._weighted = tuple(terms)
        self.needs_pixels = any(reward.needs_pixels for reward, _ in terms)
        self.name = " + ".join(reward.name for reward, _ in terms)
        names: dict[str, None] = {}
        for reward, _ in terms:
            names[_free(reward.name, names)] = None
        self.terms = tuple(names)

    def score(self, moment: Moment) -> Score:
        """The sum; `parts` holds the terms without their weights."""
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
            "text:<goal>" (`magi_world.envs.text_goal`), a function `(Chunk, info) -> (reward,
            terminated)`, a `Reward`, a list of these (their sum), or a mapping of them to weights.

    Raises:
        ValueError: anything else, or "learned" for a world without heads.
        ImportError: a text goal without the package open_clip.
    """
    has_heads = world.parts.heads is not None
    if value is None:
        return LearnedReward() if has_heads else NoReward()
    if isinstance(value, Mapping):
        return SumReward([(make_reward(v, world), _weight(w)) for v, w in value.items()])
    if isinstance(value, list | tuple) and value:
        return SumReward([(make_reward(v, world), 1.0) for v in value])
    if isinstance(value, str):
        return _named(value, world, has_heads)
    if isinstance(value, Reward) and not isinstance(value, type):
        if isinstance(value, LearnedReward) and not has_heads:
            return _named("learned", world, has_heads)
        return value
    if callable(value):
        return FunctionReward(value)
    raise ValueError(f"reward is {value!r:.80}; it must be {_CHOICES}")


def _named(value: str, world: World, has_heads: bool) -> Reward:
    if value == "none":
        return NoReward()
    if value == "learned":
        if not has_heads:
            raise ValueError(
                f"reward is 'learned', but the world {world.spec.name!r} has no reward heads; "
                "give 'none', 'text:...' or a function"
            )
        return LearnedReward()
    if value.startswith("text:") and value[5:].strip():
        from magi_world.envs.text_goal import TextGoal

        return TextGoal(value[5:].strip(), device=world.device)
    raise ValueError(f"reward is {value!r:.80}; it must be {_CHOICES}")


_CHOICES = (
    "'learned', 'none', 'text:<goal>', a function (Chunk, info) -> (reward, terminated), a list of "
    "these, or a mapping of these to weights"
)


def _weight(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise ValueError(f"the weight of a reward is {value!r}; it must be a finite number")


def _free(name: str, taken: Mapping[str, Any]) -> str:
    number = 2
    while (numbered := name if number == 2 else f"{name} {number - 1}") in taken:
        number += 1
    return numbered
