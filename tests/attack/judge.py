"""What a clear refusal is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import pytest

CLEAR = (ValueError, OSError, gym.error.Error)
# Words of torch, numpy and Python that nobody should have to read.
RAW = (
    "mat1", "size mismatch", "Expected all tensors", "'NoneType'", "unsupported operand", "aten::",
    "object is not", "object has no attribute", "invalid literal", "unhashable", "c10",
    "not subscriptable", "positional argument", "__init__", "list index", "could not convert",
    "setting an array element", "must be real number", "'<' not supported", "'>' not supported",
)  # fmt: skip
SECONDS = 20.0  # far more than any refusal takes, far less than a hang


def assert_refused(call: Callable[[], Any], *words: str) -> str:
    """``call`` must raise an error that is meant for people and has these words in it."""
    begin = time.monotonic()
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is judged below
        call()
    error, text = caught.value, str(caught.value)
    kind = f"{type(error).__name__}: {text:.300}"
    assert isinstance(error, CLEAR), f"raw: {kind}"
    assert not isinstance(error, UnicodeError), f"raw: {kind}"
    for word in words:
        assert word in text, f"does not say {word!r}: {kind}"
    for word in RAW:
        assert word not in text, f"says {word!r}: {kind}"
    assert 8 < len(text) < 2_000, f"too short or too long: {kind}"
    assert time.monotonic() - begin < SECONDS, f"after long thought: {kind}"
    return text
