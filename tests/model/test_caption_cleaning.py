"""Caption cleaning beyond the golden pairs."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magi_world.model.caption_cleaning import clean_caption
from magi_world.model.text import MAX_PROMPT_CHARACTERS

CLEANED = [
    ("see www.site.org/page now", "see now"),
    ("free download of the song", "of the song"),
    ("jpg images of a cat", "of a cat"),
    ("a 12.5x3 board", "a 12. board"),
    ("a video 640×480", "a video"),
    ("part 6640vc231 and j2d1a2a", "part and"),
    ("one-two-three", "one-two-three"),
    ("one-two-three-four-five", "one two three four five"),
    ("one_two_three_four_five", "one two three four five"),
    ("a „low“ «fr» `tick` x", 'a "low" "fr" "tick" x'),
    ("ﬁne Ｈｅｌｌｏ！", "fine hello!"),
    ("e\u0301", "é"),
    ("itâ€™s", "it†s"),
    ("<script>x</script>a<!-- no -->b", "ab"),
    ("AT&T &eacute; &#39;x&#39;", "at t é 'x"),
    ("c%20d+e", "c d e"),
    ("<3 of them", "<3 of them"),
]


@pytest.mark.parametrize(("caption", "want"), CLEANED)
def test_cleaning_examples(caption: str, want: str) -> None:
    assert clean_caption(caption) == want


@given(st.text(max_size=60))
def test_cleaning_takes_any_text(caption: str) -> None:
    cleaned = clean_caption(caption)
    assert cleaned == cleaned.strip()
    assert "  " not in cleaned
    assert "\n" not in cleaned


def test_the_longest_prompt_takes_no_more_than_a_moment() -> None:
    start = time.perf_counter()
    for piece in ("a.", "<a ", "9a", "&"):
        clean_caption((piece * MAX_PROMPT_CHARACTERS)[:MAX_PROMPT_CHARACTERS])
    assert time.perf_counter() - start < 20  # about one second; a runaway pattern takes hours
