"""Prompts, and the special features in front of their captions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from magi_world.checks import MAX_PROMPT_CHARACTERS, check_prompt
from magi_world.io.safetensors_io import WeightsError, save_tensors
from magi_world.model.text import (
    CaptionCache,
    EnhancedEncoder,
    PromptTokens,
    SavedCaptions,
    SpecialTokenEncoder,
    SpecialTokens,
    load_captions,
    save_captions,
    with_special_tokens,
)
from tests.reference.text import chunk_captions


class CountedEncoder:
    """Features that say how long their prompt was."""

    channels = 4

    def encode(self, prompt: str) -> Tensor:
        return torch.full((len(prompt), 4), float(len(prompt)))


def special_tokens(channels: int = 4) -> SpecialTokens:
    rows = torch.arange(100.0)[:, None].expand(-1, channels).contiguous()
    return SpecialTokens(rows[:1], rows[:1], rows)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (None, "NoneType"),
        (3, "int"),
        (["turn left"], "list"),
        ("", "must say something"),
        (" \n", "must say something"),
        ("x" * (MAX_PROMPT_CHARACTERS + 1), "4,097 characters"),
        ("\ud83d", "surrogates"),
    ],
)
def test_bad_prompts_are_refused(prompt: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_prompt(prompt)


def test_good_prompts_pass_unchanged() -> None:
    for prompt in ("turn left", " Überall ", "x" * MAX_PROMPT_CHARACTERS):
        assert check_prompt(prompt) == prompt


def test_duration_stays_at_the_longest_in_an_endless_stream() -> None:
    caption = torch.full((3, 4), -1.0)
    endless = with_special_tokens(caption, special_tokens(), None, 800)
    assert endless[:, 0].tolist() == [14, 1, -1, -1, -1]
    far = with_special_tokens(caption, special_tokens(), 9, 800)
    assert torch.equal(endless, far)
    last = with_special_tokens(caption, special_tokens(), 0, 800)
    assert last[:, 0].tolist() == [7, 1, -1, -1, -1]
    with pytest.raises(ValueError, match="chunks_left is -1"):
        with_special_tokens(caption, special_tokens(), -1, 800)


def test_special_features_cut_the_end() -> None:
    caption = torch.arange(20.0)[:, None].expand(-1, 4)
    rows = with_special_tokens(caption, special_tokens(), None, 20)
    assert rows[:, 0].tolist() == [14, 1, *range(18)]


def test_prefix_chunks_read_the_null_caption_and_are_counted() -> None:
    captions = chunk_captions(torch.zeros(2, 4), special_tokens(), 4, 2, 800)
    assert [len(c) for c in captions] == [0, 0, 4, 4]
    assert [c[0, 0].item() for c in captions[2:]] == [8, 7]


def save_npz(path: Path, **changes: np.ndarray) -> Path:
    arrays = {
        "caption_token": np.ones((1, 4), np.float32),
        "logo_token": np.ones((1, 4), np.float32),
        "other_tokens": np.full((100, 4), 0.1, np.float32),
    } | changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def test_special_tokens_are_float16_values(tmp_path: Path) -> None:
    loaded = SpecialTokens.load(save_npz(tmp_path / "special_tokens.npz"))
    assert loaded.channels == 4
    assert loaded.other.dtype == torch.float32
    assert loaded.other[0, 0].item() == np.float16(0.1).item() != np.float32(0.1).item()


def test_bad_special_tokens_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="logo_token"):
        SpecialTokens.load(save_npz(tmp_path / "a.npz", logo_token=None))
    with pytest.raises(ValueError, match=r"other has shape \(3, 4\)"):
        SpecialTokens.load(save_npz(tmp_path / "b.npz", other_tokens=np.ones((3, 4))))
    with pytest.raises(ValueError, match=r"logo has shape \(1, 5\)"):
        SpecialTokens.load(save_npz(tmp_path / "c.npz", logo_token=np.ones((1, 5))))
    pickled = np.array([{"a": 1}], dtype=object)
    with pytest.raises(ValueError, match=r"d\.npz"):
        SpecialTokens.load(save_npz(tmp_path / "d.npz", other_tokens=pickled))
    whole = save_npz(tmp_path / "e.npz").read_bytes()
    (tmp_path / "e.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"e\.npz"):
        SpecialTokens.load(tmp_path / "e.npz")
    with pytest.raises(FileNotFoundError, match=r"f\.npz"):
        SpecialTokens.load(tmp_path / "f.npz")


def test_special_token_encoder_puts_them_in_front() -> None:
    encoder = SpecialTokenEncoder(CountedEncoder(), special_tokens(), 6)
    assert encoder.channels == 4
    assert encoder.encode("go on now")[:, 0].tolist() == [14, 1, 9, 9, 9, 9]
    with pytest.raises(ValueError, match="5 channels"):
        SpecialTokenEncoder(CountedEncoder(), special_tokens(5), 6)


def test_every_special_feature_has_its_place() -> None:
    other = torch.arange(100.0)[:, None].expand(100, 3)
    special = SpecialTokens(torch.zeros(1, 3), torch.zeros(1, 3), other)
    caption = torch.full((2, 3), -1.0)

    def front(tokens: PromptTokens) -> list[float]:
        return with_special_tokens(caption, special, None, 800, tokens)[:, 0].tolist()

    assert front(PromptTokens()) == [14, 1, -1, -1]
    everything = PromptTokens(
        static_first_frames=True, borderness=True, model_3d=True, anime_2d=True
    )
    assert front(everything) == [14, 16, 15, 1, 4, 2, -1, -1]
    assert front(PromptTokens(dynamic_first_frames=True, hq=False)) == [14, 3, -1, -1]
    with pytest.raises(ValueError, match="both True"):
        PromptTokens(static_first_frames=True, dynamic_first_frames=True)


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


def test_what_is_not_wanted_is_in_the_order_of_the_released_code() -> None:
    other = torch.arange(100.0)[:, None].expand(-1, 4)
    special = SpecialTokens(torch.full((1, 4), 200.0), torch.full((1, 4), 300.0), other)
    assert special.unwanted[:, 0].tolist() == [4, 0, 300, 200]


def test_duration_can_be_left_out() -> None:
    rows = with_special_tokens(
        torch.zeros(2, 4), special_tokens(), None, 20, PromptTokens(duration=False, anime_2d=True)
    )
    assert rows[:, 0].tolist() == [16, 1, 0, 0]


@pytest.mark.parametrize("given", [{"hq": 1}, {"sepia": True}, "hq"])
def test_wrong_prompt_tokens_are_refused(given: object) -> None:
    with pytest.raises(ValueError, match="hq"):
        PromptTokens.of(given)  # type: ignore[arg-type]
    assert PromptTokens.of({"negative": True}) == PromptTokens(negative=True)
    assert PromptTokens.of(None) == PromptTokens()


def test_a_prompt_is_rewritten_once_and_only_to_text() -> None:
    asked = []

    def enhance(prompt: str) -> str:
        asked.append(prompt)
        return {"nothing": "", "a number": 3}.get(prompt, prompt + " at dawn")  # type: ignore

    encoder = CaptionCache(EnhancedEncoder(CountedEncoder(), enhance))
    for _ in range(2):
        assert encoder.encode("the sea")[0, 0] == len("the sea at dawn")
    assert asked == ["the sea"]
    for prompt in ("nothing", "a number"):
        with pytest.raises(ValueError, match=rf"enhance\('{prompt}'\) gave"):
            encoder.encode(prompt)
    with pytest.raises(ValueError, match="enhance is 'louder'"):
        EnhancedEncoder(CountedEncoder(), "louder")  # type: ignore[arg-type]
