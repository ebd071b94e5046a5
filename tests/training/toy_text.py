"""Words of the toy world; apart from `toy`, which the processes that record load without torch."""

from __future__ import annotations

import torch
from torch import Tensor
from toy import COMMANDS

from magi_world.training.phrases import CommandConfig, PhraseTable


class Letters:
    """A text encoder of 8 channels: one row a letter."""

    channels = 8

    def encode(self, prompt: str) -> Tensor:
        rows = torch.zeros(len(prompt), 8)
        for i, letter in enumerate(prompt):
            rows[i, ord(letter) % 8] = 1.0
        return rows


def toy_phrases() -> PhraseTable:
    """Two ways to say each of the `COMMANDS`, one of them held out."""
    table = {name: CommandConfig((name + " now",), (name + " then",)) for name in COMMANDS}
    return PhraseTable(Letters(), table)  # type: ignore[arg-type]
