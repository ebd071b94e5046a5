"""Caption features that are kept, in memory and in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from magi_world.model.captions import CaptionCache, SavedCaptions, load_captions, save_captions
from magi_world.weights import WeightsError, save_tensors


class CountingEncoder:
    """Features that say which prompt they are of, and how often each was asked for."""

    channels = 4

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, prompt: str) -> Tensor:
        self.asked.append(prompt)
        return torch.full((len(prompt), 4), float(len(prompt)))


def test_cache_asks_once_and_forgets_the_oldest() -> None:
    inner = CountingEncoder()
    cache = CaptionCache(inner, size=2)
    for prompt in ("a", "bb", "a", "ccc", "a", "bb"):
        assert cache.encode(prompt).shape == (len(prompt), 4)
    assert inner.asked == ["a", "bb", "ccc", "bb"]
    with pytest.raises(ValueError, match="must be a str"):
        cache.encode(["a"])  # type: ignore[arg-type]


def test_saved_captions_answer_without_the_encoder(tmp_path: Path) -> None:
    path = tmp_path / "captions.safetensors"
    saved = {"turn left": torch.randn(3, 4), 'say "hé"': torch.randn(1, 4).bfloat16()}
    save_captions(path, saved)
    encoder = SavedCaptions(path)
    assert encoder.channels == 4
    for prompt, features in saved.items():
        assert torch.equal(encoder.encode(prompt), features.float())
    with pytest.raises(ValueError, match=r"'turn right' is not in .*'turn left', 'say \"hé\"'"):
        encoder.encode("turn right")
    assert torch.equal(encoder.encode("turn left"), saved["turn left"])


def test_saving_captions_checks_them(tmp_path: Path) -> None:
    path = tmp_path / "captions.safetensors"
    with pytest.raises(ValueError, match="nothing to save"):
        save_captions(path, {})
    with pytest.raises(ValueError, match="must say something"):
        save_captions(path, {"": torch.zeros(1, 4)})
    with pytest.raises(ValueError, match=r"features of 'b' have shape \(1, 5\)"):
        save_captions(path, {"a": torch.zeros(1, 4), "b": torch.zeros(1, 5)})
    assert not path.exists()


def test_foreign_files_are_not_captions(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"0": torch.zeros(1, 4)})
    with pytest.raises(ValueError, match="has format None"):
        load_captions(path)
    path.write_bytes(b"")
    with pytest.raises(WeightsError, match=r"x\.safetensors is truncated"):
        load_captions(path)
