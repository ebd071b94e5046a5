"""Caption cleaning: pairs of a caption and what T5 is given for it."""

from __future__ import annotations

from magi_world.model.t5 import clean_caption


def check_caption_cleaning(pairs: list[list[str]]) -> None:
    """Raise AssertionError that lists every pair that comes out differently."""
    assert pairs, "no pairs to compare"
    wrong = [
        f"{caption!r}: {got!r}, expected {want!r}"
        for caption, want in pairs
        if (got := clean_caption(caption)) != want
    ]
    assert not wrong, f"{len(wrong)} of {len(pairs)} captions differ:\n" + "\n".join(wrong)
