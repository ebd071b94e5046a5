"""T5 from its released layout, with a tiny one made here; and the cleaning in front of it."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from magi_world.checks import MAX_PROMPT_CHARACTERS
from magi_world.io.safetensors_io import WeightsError, save_tensors
from magi_world.model.t5 import T5TextEncoder, clean_caption
from tests.checkpoints import write_t5

NEEDS_CLEANING = pytest.mark.skipif(
    find_spec("ftfy") is None or find_spec("bs4") is None, reason="ftfy or bs4 is not installed"
)


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("t5") / "t5-v1_1-xxl"
    torch.save(write_t5(folder), folder.parent / "encoder.pt")
    return folder


def test_t5_equals_the_padded_encoder(t5_folder: Path) -> None:
    from transformers import AutoTokenizer, T5EncoderModel

    encoder = T5TextEncoder(t5_folder, dtype=torch.float32)
    assert encoder.channels == 32
    features = encoder.encode("Turn LEFT, walk forward")
    model = T5EncoderModel(encoder.model.config)
    model.encoder.load_state_dict(torch.load(t5_folder.parent / "encoder.pt"))
    model.shared.load_state_dict(model.encoder.embed_tokens.state_dict())
    tokens = AutoTokenizer.from_pretrained(t5_folder)(
        "turn left, walk forward",
        max_length=40,
        padding="max_length",
        truncation=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        padded = model.eval()(**tokens).last_hidden_state[0]
    want = padded[tokens["attention_mask"][0].bool()]
    assert tokens["input_ids"][0, len(want) - 1] == 1  # the end token is among the rows
    torch.testing.assert_close(features, want, atol=1e-5, rtol=1e-5)


def test_t5_reads_the_tokens_of_its_sentencepiece_file(t5_folder: Path) -> None:
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(t5_folder / "spiece.model"))
    tokenizer = T5TextEncoder(t5_folder).tokenizer
    for text in ("turn left", "open the door, now!", ""):
        assert tokenizer(text)["input_ids"] == [*pieces.encode(text), 1]


def test_t5_cuts_a_long_prompt_and_ends_it(t5_folder: Path) -> None:
    encoder = T5TextEncoder(t5_folder, dtype=torch.float32, max_length=8)
    assert encoder.encode("turn left " * 20).shape == (8, 32)
    # Cleaning leaves nothing of a file name: the end token alone is read.
    assert encoder.encode("picture.png").shape == (1, 32)
    with pytest.raises(ValueError, match="must say something"):
        encoder.encode("")


def test_t5_holds_the_precision_asked_for(t5_folder: Path) -> None:
    encoder = T5TextEncoder(t5_folder)
    assert {p.dtype for p in encoder.model.parameters()} == {torch.bfloat16}
    assert encoder.encode("turn left").dtype == torch.float32
    with pytest.raises(ValueError, match="float16"):
        T5TextEncoder(t5_folder, dtype=torch.float16)


def copy_t5(source: Path, target: Path) -> Path:
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_t5_reads_safetensors_too(t5_folder: Path, tmp_path: Path) -> None:
    folder = copy_t5(t5_folder, tmp_path / "t5")
    state = {}
    for file in sorted(folder.glob("*.bin")):
        state |= torch.load(file, weights_only=True)
        file.unlink()
    (folder / "pytorch_model.bin.index.json").unlink()
    save_tensors(folder / "model.safetensors", state)
    first = T5TextEncoder(t5_folder).encode("open the door")
    assert torch.equal(T5TextEncoder(folder).encode("open the door"), first)


def test_damaged_t5_is_named(t5_folder: Path, tmp_path: Path) -> None:
    folder = copy_t5(t5_folder, tmp_path / "a")
    shard = folder / "pytorch_model-00002-of-00002.bin"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="00002-of-00002"):
        T5TextEncoder(folder)
    state = torch.load(t5_folder / shard.name, weights_only=True)
    lost = next(k for k in state if k.startswith("encoder.block.1"))
    torch.save({k: v for k, v in state.items() if k != lost}, shard)
    index = json.loads((folder / "pytorch_model.bin.index.json").read_text())
    del index["weight_map"][lost]
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match=f"1 missing: {lost}"):
        T5TextEncoder(folder)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        T5TextEncoder(tmp_path / "nowhere")
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not a folder of T5"):
        T5TextEncoder(folder)


def test_t5_blames_the_weight_that_is_not_finite(t5_folder: Path) -> None:
    encoder = T5TextEncoder(t5_folder)
    encoder.model.encoder.final_layer_norm.weight[3] = float("nan")
    with pytest.raises(WeightsError, match="final_layer_norm"):
        encoder.encode("turn left")


def test_t5_says_what_to_install(t5_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'magi-world\[magi1\]'"):
        T5TextEncoder(t5_folder)


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


@NEEDS_CLEANING
@pytest.mark.parametrize(("caption", "want"), CLEANED)
def test_cleaning_examples(caption: str, want: str) -> None:
    assert clean_caption(caption) == want


@NEEDS_CLEANING
@given(st.text(max_size=60))
def test_cleaning_takes_any_text(caption: str) -> None:
    cleaned = clean_caption(caption)
    assert cleaned == cleaned.strip()
    assert "  " not in cleaned
    assert "\n" not in cleaned


@NEEDS_CLEANING
def test_the_longest_prompt_takes_no_more_than_a_moment() -> None:
    start = time.perf_counter()
    for piece in ("a.", "<a ", "9a", "&"):
        clean_caption((piece * MAX_PROMPT_CHARACTERS)[:MAX_PROMPT_CHARACTERS])
    assert time.perf_counter() - start < 20  # about one second; a runaway pattern takes hours
