"""Commands and the phrasings that mean them, as padded features for the trainer.

Legend: P phrasings, L rows of the longest, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from magi_world.model.static_text import StaticTextEncoder

Split = Literal["train", "held_out"]


@dataclass(frozen=True)
class CommandConfig:
    """One command: key names that play it, phrasings trained on, phrasings kept for the test.

    opposite: the command that undoes it, which "back" means, '' = none; chunks: how long it takes
    by itself, in a sentence that goes on with something else.
    """

    phrases: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    keys: tuple[str, ...] = field(default=())
    opposite: str = ""
    chunks: int = 1

    def __post_init__(self) -> None:
        if not self.phrases:
            raise ValueError("CommandConfig.phrases is empty; give at least one phrasing")
        if both := set(self.phrases) & set(self.held_out):
            raise ValueError(f"CommandConfig.held_out repeats trained phrasings {sorted(both)}")


class PhraseTable:
    """Features of every phrasing of every command.

    Args:
        commands: command -> its phrasings. The command itself counts as a trained phrasing.
    """

    def __init__(self, encoder: StaticTextEncoder, commands: Mapping[str, CommandConfig]) -> None:
        self.commands = list(commands)
        self.phrases: dict[str, list[list[str]]] = {
            "train": [[name, *c.phrases] for name, c in commands.items()],
            "held_out": [list(c.held_out) for c in commands.values()],
        }
        flat: dict[str, None] = {}
        for lists in self.phrases.values():
            flat.update((p, None) for phrases in lists for p in phrases)
        features = {p: encoder.encode(p) for p in flat}
        if empty := [p for p, f in features.items() if len(f) == 0]:
            raise ValueError(f"phrasings {empty} have no piece in the text vocabulary")
        longest = max(len(f) for f in features.values())
        self._row = {p: i for i, p in enumerate(flat)}
        self.features = torch.zeros(len(flat), longest, encoder.channels)
        self.mask = torch.zeros(len(flat), longest, dtype=torch.bool)
        for p, f in features.items():
            self.features[self._row[p], : len(f)] = f
            self.mask[self._row[p], : len(f)] = True

    def rows(self, phrases: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Features (n, L, C) and mask (n, L) of phrasings of this table."""
        index = torch.tensor([self._row[p] for p in phrases])
        return self.features[index], self.mask[index]

    def draw(
        self,
        command: Tensor,
        generator: torch.Generator,
        split: str = "train",
        word_drop: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """A random phrasing for each entry of ``command`` (any shape).

        word_drop: chance that a caption loses single word rows; its first row, the mean of all
            words, always stays, so that nothing is lost but redundancy.

        Returns:
            features (*shape, L, C) and mask (*shape, L).
        """
        lists = self.phrases[split]
        pick = torch.rand(command.numel(), generator=generator).tolist()
        names = [
            lists[c][int(u * len(lists[c]))]
            for c, u in zip(command.flatten().tolist(), pick, strict=True)
        ]
        features, mask = self.rows(names)
        if word_drop:
            lossy = torch.rand(len(names), 1, generator=generator) < word_drop
            lose = torch.rand(mask.shape, generator=generator) < 0.3
            lose[:, 0] = False
            mask = mask & ~(lossy & lose)
        return features.view(*command.shape, *features.shape[1:]), mask.view(*command.shape, -1)
