"""From likeness to confidence: how often is a command right that looks like this one?

A logistic curve over `Score.features`, fitted to the world itself: its held-out phrasings and a
sample of its own ones (each compared with the others) should be understood, sentences about other
things should not. Where a world has few of them the curve stays near the one that the package's
own worlds gave. Deterministic: no random numbers, a fixed number of Newton steps in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from magi_world.language.matching import Matcher, Score, plain
from magi_world.language.vocabulary import FILLERS, LITTLE
from magi_world.language.words import stem, tokens
from magi_world.world.spec import Command

# What the curve is without any evidence: bias, likeness, margin, clear, strange, unknown words.
PRIOR = np.array([-11.0, 13.0, 3.0, 2.5, -3.0, -2.5])
PRIOR_WIDTH = 3.0
OWN_PHRASES = 8  # of each command, at most
LEAST, MOST = 0.6, 0.9  # what a threshold may be


@dataclass(frozen=True)
class Calibration:
    """curve: bias, then a factor for each of `Score.features`.    threshold: of the confidence."""

    curve: tuple[float, ...]
    threshold: float

    def confidence(self, score: Score) -> float:
        """Chance that the command of this score is the one that was meant, 0 .. 1."""
        return float(_logistic(np.array([1.0, *score.features]) @ np.array(self.curve)))


def calibrate(matcher: Matcher, commands: Sequence[Command]) -> Calibration:
    """Fit the curve of a world, and find its threshold.

    The threshold is the middle between what 99 of 100 sentences about other things stay below and
    what nine of ten held-out phrasings reach, where these are apart; else just above the former.
    """
    ours: list[tuple[float, ...]] = []
    right: list[bool] = []
    held: list[int] = []
    for command in commands:
        for phrase in command.held_out:
            held.append(len(ours))
            score = matcher.score(_words(phrase))
            ours.append(score.features)
            right.append(score.command == command.name)
        step = -(-len(command.phrases) // OWN_PHRASES) or 1
        for phrase in command.phrases[::step]:
            score = matcher.score(_words(phrase), without=plain(_words(phrase)))
            ours.append(score.features)
            right.append(score.command == command.name)
    theirs = [matcher.score(words).features for words in foreign(matcher)]
    x = np.array([(1.0, *features) for features in [*ours, *theirs]])
    y = np.array([*right, *[False] * len(theirs)], float)
    curve = _fit(x, y)
    confidence = _logistic(x @ curve)
    others = confidence[len(ours) :]
    highest = float(np.quantile(others, 0.99)) if len(others) else 0.0
    known = confidence[held] if held else confidence[: len(ours)][np.array(right, bool)]
    low = float(np.quantile(known, 0.1)) if len(known) else MOST
    middle = (highest + low) / 2 if low > highest else highest + 0.01
    return Calibration(tuple(curve.tolist()), float(np.clip(middle, LEAST, MOST)))


def foreign(matcher: Matcher) -> list[list[str]]:
    """The words of sentences that this world cannot mean: each has one that it does not use."""
    own = {stem(w) for w in matcher.words}
    return [
        words
        for words in _lines()
        if any(stem(w) not in own and w not in LITTLE and w not in FILLERS for w in words)
    ]


def foreign_words() -> frozenset[str]:
    """All words of those sentences: words that are spelt right, whatever a world knows."""
    return frozenset(word for words in _lines() for word in words)


def _lines() -> list[list[str]]:
    text = files("magi_world.language").joinpath("foreign.txt").read_text(encoding="utf-8")
    return [_words(line) for line in text.splitlines() if line.strip() and line[0] != "#"]


def _words(text: str) -> list[str]:
    return [t for t in tokens(text) if t[0].isalnum()]


def _fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Logistic regression with a normal prior around `PRIOR`; both classes weigh the same."""
    curve = PRIOR.copy()
    weight = np.where(y > 0, 0.5 / max(y.sum(), 1), 0.5 / max((1 - y).sum(), 1)) * len(y)
    precision = np.eye(len(PRIOR)) / PRIOR_WIDTH**2
    for _ in range(30):
        p = _logistic(x @ curve)
        gradient = x.T @ (weight * (p - y)) + precision @ (curve - PRIOR)
        bend = (x * (weight * p * (1 - p))[:, None]).T @ x + precision
        curve = curve - np.linalg.solve(bend, gradient)
    return curve


def _logistic(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(z, -40, 40)))
