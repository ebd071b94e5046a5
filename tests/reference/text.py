"""Special features in front of a caption, chunk by chunk."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from magi_world.model.text import SpecialTokens, with_special_tokens
from tests.reference.compare import relative_error


def check_text(case: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, float]:
    """Relative error of the padded features and their mask, and of the unmasked rows alone."""
    special = _special(tensors["hq_token"], tensors["duration_tokens"])
    # The mask takes the same way as the features: what is put in front of it is ones.
    ones = SpecialTokens(torch.ones(1, 1), torch.ones(1, 1), torch.ones(100, 1))
    padded, mask = tensors["caption"][0, 0], tensors["caption_mask"][0]
    assert tensors["caption"].shape[:2] == (1, 1), "one caption for all chunks is expected"
    chunks, clean, length = case["infer_chunks"], case["clean_chunks"], len(padded)
    null = tensors["null"][0]
    rows = chunk_captions(padded, special, chunks, clean, length)
    masks = chunk_captions(mask[:, None], ones, chunks, clean, length)
    got = torch.stack([r if len(r) else null for r in rows])
    got_mask = torch.stack([m[:, 0] if len(m) else torch.zeros(length) for m in masks])
    want, want_mask = tensors["out"][0], tensors["out_mask"][0]
    errors = {
        "out": relative_error(got, want),
        "out_mask": relative_error(got_mask, want_mask),
    }
    # The package itself carries unmasked rows only.
    unmasked = chunk_captions(padded[mask.bool()], special, chunks, clean, length)
    for i, row in enumerate(unmasked):
        expected = want[i][want_mask[i].bool()]
        assert row.shape == expected.shape, f"chunk {i}: {row.shape}, expected {expected.shape}"
        if len(row):
            errors[f"unmasked.{i}"] = relative_error(row, expected)
    return errors


def chunk_captions(
    caption: Tensor, special: SpecialTokens, chunks: int, clean_chunks: int, caption_length: int
) -> list[Tensor]:
    """The caption that each chunk of a finite video reads.

    Args:
        caption: (L, C), the same for all chunks.
        chunks: n, prefix chunks included.
        clean_chunks: how many of them are a whole-chunk prefix; they read the null caption.
        caption_length: rows of a caption at most.

    Returns:
        n tensors; (0, C), the null caption, for the prefix.
    """
    return [
        caption[:0]
        if i < clean_chunks
        else with_special_tokens(caption, special, chunks - i - 1, caption_length)
        for i in range(chunks)
    ]


def _special(hq: Tensor, durations: Tensor) -> SpecialTokens:
    other = torch.zeros(100, hq.shape[1])
    other[SpecialTokens.HQ] = hq[0]
    first = SpecialTokens.FIRST_DURATION
    other[first : first + len(durations)] = durations
    return SpecialTokens(hq * 0, hq * 0, other)
