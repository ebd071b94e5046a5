"""Which command a few words mean, by the words that a world was told in and their likeness.

A phrase of the world that is typed is that command. Other words are laid beside every phrase, word
by word: the same stem is alike, words that stand in the same places of the world's phrases are
nearly so, other words are as alike as their features in the text table. Words that tell commands
apart (left and right, red and blue) are never alike, and a word from outside that is as near to one
as to the other is like neither.

Legend: V stems of the world, P phrases, L words of the longest, n words of a text, C commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from torch import Tensor

from magi_world.language.vocabulary import FILLERS, LITTLE, VOCABULARY
from magi_world.language.words import stem, tokens
from magi_world.model.static_text import StaticTextEncoder
from magi_world.world.spec import Command

# Cosines of the text table below LOW mean nothing, those above HIGH the same.
LOW, HIGH = 0.35, 0.75
OUTSIDE = 4096  # other words whose likeness is kept
PARADIGM = 0.8  # likeness of words that stand in each other's place in the world's phrases


class Encoder(Protocol):
    """The text encoder of a world."""

    def encode(self, prompt: str) -> Tensor:
        """Features (L, C) of a text; L may be 0."""
        ...


@dataclass(frozen=True)
class Score:
    """How well words fit their best command.

    likeness: of the nearest phrase, 0 .. 1.    margin: to that of the nearest other command.
    strange: share of the words, by weight, that are like nothing in the command.
    exact: the words are a phrase.    unknown: words of other worlds, like none of the command.
    """

    command: str
    likeness: float
    margin: float
    strange: float
    exact: bool
    unknown: tuple[str, ...]

    @property
    def features(self) -> tuple[float, ...]:
        """What the confidence is computed from; a margin below 0.04 is hardly one."""
        clear = min(self.margin / 0.04, 1.0)
        strangers = float(min(len(self.unknown), 2))
        return self.likeness, min(self.margin, 0.3), clear, self.strange, strangers


def plain(words: Sequence[str]) -> tuple[str, ...]:
    """What phrasings of one phrase have in common: no fillers, no articles, no endings.

    Behind the first word, "turning" stays what it is: "walk forward turning left" is one thing,
    "walk forward turn left" are two.
    """
    kept = [w for w in words if w not in FILLERS and w not in _LOOSE] or list(words)
    return tuple(w if i and w.endswith("ing") else stem(w) for i, w in enumerate(kept))


_LOOSE = frozenset(("the", "a", "an", "to", "towards", "toward", "your"))


class Matcher:
    """The phrases of a world, ready to be compared with what is said."""

    def __init__(self, commands: Sequence[Command], encoder: Encoder) -> None:
        """Phrases are the commands' names and trained phrasings; held-out ones are left out."""
        self._encoder = encoder
        self.names = [c.name for c in commands]
        said = [(i, p) for i, c in enumerate(commands) for p in (c.name, *c.phrases)]
        self.phrases = [tuple(t for t in tokens(p) if t[0].isalnum()) for _, p in said]
        self.owner = np.array([i for i, _ in said])
        self._same: dict[tuple[str, ...], list[int]] = {}
        # A phrase of two commands belongs to the one that has it for a name, else to the first.
        self.exact: dict[tuple[str, ...], int] = {}
        self.loose: dict[tuple[str, ...], int] = {}
        clashing: set[tuple[str, ...]] = set()
        names = {tuple(t for t in tokens(n) if t[0].isalnum()): i for i, n in enumerate(self.names)}
        for row, ((i, _), words) in enumerate(zip(said, self.phrases, strict=True)):
            bare = plain(words)
            self._same.setdefault(bare, []).append(row)
            owner = self.exact.setdefault(words, names.get(words, i))
            if self.loose.setdefault(bare, owner) != owner:
                clashing.add(bare)
        for bare in clashing:  # "turn" and "turn to" may be two things
            del self.loose[bare]
        self.words = frozenset(w for p in self.phrases for w in p)
        self.stems = frozenset(stem(w) for w in self.words)
        self.pairs = frozenset(pair for p in self.phrases for pair in pairwise(map(stem, p)))
        self._index(encoder)

    def find(self, words: Sequence[str]) -> int | None:
        """Number of the command that has these very words for a phrase."""
        found = self.exact.get(tuple(words))
        return self.loose.get(plain(words)) if found is None else found

    def score(self, words: Sequence[str], without: tuple[str, ...] | None = None) -> Score:
        """The nearest command.

        Args:
            words: folded, n > 0.
            without: leave out the phrases that `plain` makes this, to see how well they are
                understood by means of the others.
        """
        bare = [w for w in words if w not in FILLERS] or list(words)
        rows = np.stack([self._likeness(w) for w in bare])  # (n, V + 1)
        weights = np.array([self._weight_of(w) for w in bare])
        pairs = rows[:, self._places]  # (n, L, P)
        theirs, mine = pairs.max(0), pairs.max(1)  # (L, P), (n, P)
        covered = weights @ mine / weights.sum()
        echoed = (self._phrase_weights * theirs).sum(0)
        fit = covered**0.6 * echoed**0.4
        if without is not None:
            fit[self._same.get(without, [])] = 0.0
        best_of = np.zeros(len(self.names))
        np.maximum.at(best_of, self.owner, fit)
        order = np.argsort(-best_of, kind="stable")
        best = int(order[0])
        second = float(best_of[order[1]]) if len(order) > 1 else 0.0
        of_best = np.where(self.owner == best)[0]
        near = rows[:, self._uses[best]].max(1) if self._uses[best].any() else rows.max(1)
        strange = float((weights * (1 - near)).sum() / weights.sum())
        unknown = tuple(
            dict.fromkeys(
                w
                for w, alike in zip(bare, near, strict=True)
                if alike < 0.5 and w not in _NEVER_STRANGE and stem(w) not in self._row
            )
        )
        likeness = float(fit[of_best].max())
        exact = without is None and self.find(words) is not None
        return Score(self.names[best], likeness, likeness - second, strange, exact, unknown)

    def _index(self, encoder: Encoder) -> None:
        """Tables over the world's own stems."""
        stems = sorted({stem(w) for p in self.phrases for w in p})
        self._row = {s: i for i, s in enumerate(stems)}
        size, count = len(stems), len(self.names)
        uses = np.zeros((count, size + 1), bool)
        together = np.zeros((size, size), bool)
        for i, phrase in zip(self.owner, self.phrases, strict=True):
            rows = [self._row[stem(w)] for w in phrase]
            uses[i, rows] = True
            together[np.ix_(rows, rows)] = True
        self._uses = uses
        spread = uses[:, :size].sum(0)
        little = self._little = np.array([s in _LITTLE_STEMS for s in stems])
        self._weight = np.log1p(count / spread) * np.where(little, 0.2, 1.0)
        self._rare = float(np.log1p(count))
        longest = max(map(len, self.phrases))
        self._places = np.full((longest, len(self.phrases)), size)
        for column, phrase in enumerate(self.phrases):
            self._places[: len(phrase), column] = [self._row[stem(w)] for w in phrase]
        weights = np.append(self._weight, 0.0)[self._places]  # (L, P)
        self._phrase_weights = weights / weights.sum(0)
        shortest: dict[str, str] = {}  # of each stem: "walk" for walks, walking, walk
        for word in sorted(self.words, key=lambda w: (len(w), w)):
            shortest.setdefault(stem(word), word)
        vectors = [_unit(encoder, shortest[s]) for s in stems]
        self._known = np.array([v is not None for v in vectors])
        width = next((len(v) for v in vectors if v is not None), 1)
        self._vectors = np.stack([np.zeros(width) if v is None else v for v in vectors])
        shared = uses[:, :size].T.astype(float) @ uses[:, :size]  # commands that use both
        either = spread[:, None] + spread[None] - shared
        # Words of disjoint commands tell them apart; little words tell nothing.
        self._apart = (shared == 0) & ~little[:, None] & ~little[None]
        cosine = _ramp(self._vectors @ self._vectors.T)
        stand_in = np.where(together, 0.0, PARADIGM * shared / either)
        likeness = np.where(self._apart, 0.0, np.maximum(np.where(together, 0, cosine), stand_in))
        np.fill_diagonal(likeness, 1.0)
        self._alike = np.concatenate([likeness, np.zeros((size, 1))], 1)  # (V, V + 1)
        self._outside: dict[str, np.ndarray] = {}

    def _likeness(self, word: str) -> np.ndarray:
        """(V + 1,): how alike a word is to each stem of the world, and 0 for no word."""
        row = self._row.get(stem(word))
        if row is not None:
            return self._alike[row]
        if word not in self._outside:
            if len(self._outside) >= OUTSIDE:
                self._outside.clear()
            self._outside[word] = self._compare(word)
        return self._outside[word]

    def _compare(self, word: str) -> np.ndarray:
        out = np.zeros(len(self._row) + 1)
        vector = _unit(self._encoder, word)
        if vector is None:
            return out
        cosine = self._vectors @ vector
        # Like one of two words that tell commands apart only as far as it is more like that one.
        rival = np.where(self._apart, cosine[None], -1.0).max(1)
        likeness = _ramp(cosine) * np.clip((cosine - rival) / 0.2, 0.0, 1.0)
        # A likeness to "it" or "do" is none.
        out[:-1] = np.where(self._known, likeness, 0.0) * np.where(self._little, 0.2, 0.9)
        return out

    def _weight_of(self, word: str) -> float:
        root = stem(word)
        row = self._row.get(root)
        if row is not None:
            return float(self._weight[row])
        return 0.2 * self._rare if root in _LITTLE_STEMS else self._rare


_NEVER_STRANGE = LITTLE | VOCABULARY
_LITTLE_STEMS = frozenset(stem(w) for w in LITTLE)


def _ramp(cosine: np.ndarray) -> np.ndarray:
    return np.clip((cosine - LOW) / (HIGH - LOW), 0.0, 1.0)


def _unit(encoder: Encoder, word: str) -> np.ndarray | None:
    """Direction of a word's features; None where they say nothing about it."""
    if isinstance(encoder, StaticTextEncoder):
        pieces = encoder.pieces(word)
        # Letters and scraps (h ##j ##k ##l) have features, but no meaning.
        if len(pieces) > 1 and sum(len(p.removeprefix("##")) for p in pieces) < 3 * len(pieces):
            return None
    features = encoder.encode(word)
    if len(features) == 0:
        return None
    vector = features.double().mean(0).cpu().numpy()
    norm = float(np.sqrt(vector @ vector))
    return None if norm == 0 else vector / norm
