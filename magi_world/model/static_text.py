"""The text encoder of shipped worlds: a table of static word-piece features.

The table is distilled from a sentence model at training time (`magi_world.training.text`); at run
time there is only a look-up, which needs the `tokenizers` package and well under a millisecond.

Shape legend
    V  word pieces          L  rows of a caption          C  channels of a feature
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from magi_world.io.safetensors_io import save_tensors

TOKENIZER = "tokenizer.json"
TABLE = "features.safetensors"


class StaticTextEncoder:
    """Prompt -> features (L, C): first the prompt's mean, scaled to unit size, then its pieces.

    Args:
        folder: with ``tokenizer.json`` and ``features.safetensors`` (tensor ``features``, (V, C)).
        max_rows: rows kept of a long prompt.

    Attributes:
        channels: C.

    Raises:
        ValueError: a file is missing or damaged, or the two do not fit together.
    """

    def __init__(self, folder: str | Path, max_rows: int = 48) -> None:
        from tokenizers import Tokenizer

        if max_rows < 2:
            raise ValueError(f"StaticTextEncoder.max_rows is {max_rows}; it must be at least 2")
        folder = Path(folder)
        for name in (TOKENIZER, TABLE):
            if not (folder / name).is_file():
                raise ValueError(f"text folder {folder} has no {name}")
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # tokenizers raises bare Exception
            raise ValueError(f"{folder / TOKENIZER} cannot be read: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        try:
            with safe_open(folder / TABLE, framework="pt") as file:
                self._table = file.get_tensor("features").float()
        except SafetensorError as error:
            raise ValueError(f"{folder / TABLE} cannot be read: {error}") from error
        if not torch.isfinite(self._table).all():
            raise ValueError(f"{folder / TABLE} holds NaN or infinity")
        size = self._tokenizer.get_vocab_size()
        if self._table.dim() != 2 or len(self._table) != size:
            raise ValueError(
                f"{folder / TABLE} has features of shape {tuple(self._table.shape)}; the tokenizer "
                f"needs ({size}, channels)"
            )
        self.max_rows = max_rows

    @property
    def channels(self) -> int:
        """Channels of a feature."""
        return int(self._table.shape[1])

    def pieces(self, text: str) -> list[str]:
        """The pieces of the vocabulary that a text is made of; [] where it has none of it."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        unknown = self._tokenizer.token_to_id("[UNK]")
        return [p for p, i in zip(encoding.tokens, encoding.ids, strict=True) if i != unknown]

    def encode(self, prompt: str) -> Tensor:
        """Features (L, C) float32 of ``prompt``; L = 0 where nothing is left to read (e.g. "").

        Upper case, accents and extra spaces make no difference. Pieces that the vocabulary lacks
        are left out.
        """
        encoding = self._tokenizer.encode(prompt, add_special_tokens=False)
        unknown = self._tokenizer.token_to_id("[UNK]")
        ids = [i for i in encoding.ids if i != unknown]
        rows = self._table[torch.tensor(ids, dtype=torch.long)]
        if not ids:
            return rows
        mean = rows.mean(0, keepdim=True)
        mean = mean / mean.square().mean().sqrt().clamp_min(1e-6)
        return torch.cat([mean, rows])[: self.max_rows]

    def knows(self, text: str) -> bool:
        """Whether there is anything in it that the vocabulary has."""
        return len(self.encode(text)) > 0

    def spells_out(self, phrase: str) -> list[str]:
        """The words of ``phrase`` that the vocabulary does not know as such: they are unknown, or
        are put together of single letters."""
        encoding = self._tokenizer.encode(phrase, add_special_tokens=False)
        words: dict[int, list[str]] = {}
        for piece, word in zip(encoding.tokens, encoding.word_ids, strict=True):
            words.setdefault(-1 if word is None else word, []).append(piece.removeprefix("##"))
        return [
            "".join(pieces)
            for pieces in words.values()
            if "[UNK]" in pieces or (len(pieces) > 1 and any(len(p) == 1 for p in pieces))
        ]

    def save(self, folder: str | Path) -> None:
        """Write tokenizer and table (float16) to ``folder``, which is made if it is not there."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._tokenizer.save(str(folder / TOKENIZER))
        save_tensors(folder / TABLE, {"features": self._table.half()})
