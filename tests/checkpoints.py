"""Tiny checkpoints, written exactly as the released ones lie on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from magi_world.io.safetensors_io import load_tensors, save_tensors

GOLDEN = Path(__file__).parent / "golden"
WORDS = "turn left right walk forward stop open the door now look up down and a dog runs far away"


def pack(file: Path) -> None:
    """Replace a file by its zstd form."""
    zstandard = pytest.importorskip("zstandard", reason="zstandard is not installed")
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(file.read_bytes())
    file.with_name(file.name + ".zst").write_bytes(packed)
    file.unlink()


def write_shards(folder: Path, tensors: dict[str, Tensor], count: int = 2) -> list[Path]:
    """model-0000i-of-0000n.safetensors with their index."""
    names = list(tensors)
    shards = {f"model-{i + 1:05}-of-{count:05}.safetensors": names[i::count] for i in range(count)}
    for file, keys in shards.items():
        save_tensors(folder / file, {k: tensors[k] for k in keys})
    weight_map = {k: file for file, keys in shards.items() for k in keys}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return [folder / file for file in shards]


def golden_case(name: str) -> dict[str, Any]:
    """The ``case`` of a golden file."""
    with safe_open(GOLDEN / f"{name}.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["case"])


def write_dit(folder: Path, weights: str = "weights_gelu") -> Path:
    """A golden transformer as ``inference_weight*/model.safetensors``."""
    folder.mkdir(parents=True)
    save_tensors(folder / "model.safetensors", load_tensors(GOLDEN / f"{weights}.safetensors"))
    return folder


def write_vae(folder: Path, case: str = "vae_final_proj") -> Path:
    """A golden autoencoder as config.json + diffusion_pytorch_model.safetensors."""
    folder.mkdir(parents=True)
    config = {"_class_name": "ViTVAE", "ddconfig": golden_case(case)["ddconfig"]}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_tensors(GOLDEN / f"{case}.safetensors", "weights.")
    save_tensors(folder / "diffusion_pytorch_model.safetensors", tensors)
    return folder


def write_special_tokens(file: Path, channels: int = 32) -> Path:
    """``special_tokens.npz``; row i of other_tokens is all i."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = np.repeat(np.arange(100, dtype=np.float32)[:, None], channels, axis=1)
    np.savez(file, caption_token=rows[:1], logo_token=rows[:1], other_tokens=rows)
    return file


def write_t5(folder: Path) -> dict[str, Tensor]:
    """``t5-v1_1-xxl/``: two pytorch_model.bin shards, spiece.model; returns the encoder's state."""
    for name in ("ftfy", "bs4"):
        pytest.importorskip(name)
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    folder.mkdir(parents=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([WORDS] * 50),
        model_prefix=str(folder / "spiece"),
        vocab_size=48,
        hard_vocab_limit=False,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"extra_ids": 0, "tokenizer_class": "T5Tokenizer", **special})
    )
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    torch.manual_seed(0)
    config = transformers.T5Config(
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        vocab_size=48,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    model = transformers.T5ForConditionalGeneration(config)
    model.config.save_pretrained(folder)
    # As released: the whole model, the token table once, in two pickles with an index.
    state = {k: v for k, v in model.state_dict().items() if "embed_tokens" not in k}
    names = sorted(state)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2]}
    shards["pytorch_model-00002-of-00002.bin"] = names[1::2]
    for file, keys in shards.items():
        torch.save({k: state[k] for k in keys}, folder / file)
    weight_map = {k: file for file, keys in shards.items() for k in keys}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return model.get_encoder().state_dict()
