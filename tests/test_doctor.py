"""The report on a folder of released weights: complete, honest, and read from headers alone."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import magi_world.io.safetensors_io
from magi_world.config import MagiConfig, SamplerConfig
from magi_world.doctor import report_weights
from magi_world.io.read_released import open_dit
from magi_world.io.released import PRESETS
from magi_world.io.safetensors_io import load_tensors, save_tensors
from magi_world.memory import cache_bytes
from magi_world.model.dit import DiT
from magi_world.sampling.stream import ChunkStream, StreamConfig
from tests.checkpoints import (
    GOLDEN,
    golden_case,
    pack,
    write_dit,
    write_shards,
    write_special_tokens,
    write_t5,
    write_vae,
)
from tests.reference.released import dit_config_from_released

ONE_PASS = SamplerConfig(num_steps=8, passes=1, distilled=True)
TINY = {
    config.name: config
    for config in (
        MagiConfig("tiny-base", dit_config_from_released(golden_case("forward_gelu")["config"])),
        MagiConfig(
            "tiny-fp8",
            dit_config_from_released(golden_case("forward_fp8")["config"]),
            sampler=ONE_PASS,
        ),
    )
}


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weights")
    write_dit(root / "ckpt/magi/tiny_base/inference_weight")
    write_dit(root / "ckpt/magi/tiny_quant/inference_weight.fp8.distill", "weights_fp8")
    write_vae(root / "ckpt/vae")
    write_t5(root / "ckpt/t5/t5-v1_1-xxl")
    write_special_tokens(root / "special_tokens.npz")
    return root


def test_a_complete_folder(complete: Path) -> None:
    report = report_weights(complete, (64, 96), 2, TINY)
    assert report.problems == ()
    assert [(p.part, p.name) for p in report.parts] == [
        ("transformer", "tiny-base"),
        ("transformer", "tiny-fp8"),
        ("vae", "ViTVAE"),
        ("t5", "T5 encoder of width 32"),
        ("special_tokens", "features in front of captions, 32 channels"),
    ]
    for part, weights in zip(report.parts, ("weights_gelu", "weights_fp8"), strict=False):
        stored = load_tensors(GOLDEN / f"{weights}.safetensors")
        assert part.tensors == len(stored)
        assert part.parameters == sum(t.numel() for t in stored.values())
        assert part.disk_bytes == (Path(part.path) / "model.safetensors").stat().st_size
        for key in ("float32", "bfloat16"):
            dit = open_dit(part.path, TINY[part.name].dit, dtype=getattr(torch, key))
            held = sum(p.nbytes for p in dit.parameters())
            assert part.memory_bytes[key] == held
    text = "\n".join(report.lines())
    for words in ("tiny-base", "64x96", "window 2", "tiny-fp8 in bfloat16 needs", "with T5"):
        assert words in text
    assert "PROBLEM" not in text
    assert "missing" not in text


def test_the_cache_is_as_large_as_the_stream_makes_it() -> None:
    for config in TINY.values():
        chosen = config.with_options(frame_size=(32, 48), window_size=2)
        if chosen.dit.fp8:
            continue  # it answers in bfloat16 only, which the arithmetic below covers
        with torch.device("meta"):
            dit = DiT(chosen.dit).to(torch.float32)
        stream = ChunkStream(dit.to_empty(device="cpu"), stream_config(chosen))
        held = stream.cache.k.nbytes + stream.cache.v.nbytes
        chunks = chosen.sampler.history
        assert cache_bytes(chosen, 1, chunks, torch.float32) == held
        assert cache_bytes(chosen, 1, chunks, torch.bfloat16) == held // 2


def stream_config(config: MagiConfig) -> StreamConfig:
    return StreamConfig(config.sampler, config.latent_size)


def test_memory_is_the_sum_of_the_parts(complete: Path) -> None:
    report = report_weights(complete, (64, 96), 2, TINY)
    dit, _, vae, t5, _ = report.parts
    without = (
        dit.memory_bytes["bfloat16"] + dit.cache_bytes["bfloat16"] + vae.memory_bytes["bfloat16"]
    )
    assert report.memory("tiny-base", t5=False) == without
    assert report.memory("tiny-base") == without + t5.memory_bytes["bfloat16"]
    # The decoder lies in T5's file too, and is never loaded.
    assert t5.memory_bytes["float32"] < 4 * t5.parameters


def test_the_report_is_plain_data(complete: Path) -> None:
    report = report_weights(complete, presets=TINY)
    again = json.loads(json.dumps({**asdict(report), "problems": report.problems}))
    assert again["parts"][1]["name"] == "tiny-fp8"
    assert again["problems"] == []
    assert again["frame_sizes"]["tiny-base"] == [720, 720]


def test_no_tensor_is_read(complete: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(magi_world.io.safetensors_io, "safe_open", refuse)
    monkeypatch.setattr(magi_world.io.safetensors_io, "read_tensors", refuse)
    assert report_weights(complete, presets=TINY).problems == ()


def test_an_empty_folder_says_what_belongs_there(tmp_path: Path) -> None:
    report = report_weights(tmp_path)
    assert report.parts == ()
    assert [m.split(":")[0].split(" ")[0] for m in report.missing] == [
        "transformer",
        "VAE",
        "T5",
        "special_tokens.npz",
    ]
    assert sum(line.startswith("missing: ") for line in report.lines()) == 4
    with pytest.raises(FileNotFoundError, match="nowhere"):
        report_weights(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="height is 50"):
        report_weights(tmp_path, (50, 64))


def test_weights_that_are_no_released_model(tmp_path: Path) -> None:
    write_dit(tmp_path / "inference_weight")
    (problem,) = report_weights(tmp_path).parts[0].problems
    assert problem.startswith("inference_weight with 2 layers of width 128 is none of magi-1-4.5b")


def test_wrong_shapes_are_reported(tmp_path: Path) -> None:
    folder = write_dit(tmp_path / "inference_weight")
    tensors = load_tensors(GOLDEN / "weights_gelu.safetensors")
    tensors["rope.bands"] = torch.zeros(9)
    del tensors["final_linear.linear.weight"]
    save_tensors(folder / "model.safetensors", tensors)
    report = report_weights(tmp_path, presets=TINY)
    assert report.parts[0].problems == (
        "1 missing: final_linear.linear.weight",
        "1 wrong shape: rope.bands [9] instead of [2]",
    )
    assert "    PROBLEM: 1 missing: final_linear.linear.weight" in report.lines()
    assert not any("in bfloat16 needs" in line for line in report.lines())


def test_damaged_shards_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_dit(tmp_path / "inference_weight")
    (folder / "model.safetensors").unlink()
    shards = write_shards(folder, load_tensors(GOLDEN / "weights_gelu.safetensors"), count=3)

    def problems() -> str:
        return "; ".join(report_weights(tmp_path, presets=TINY).parts[0].problems)

    assert problems() == ""
    whole = shards[1].read_bytes()
    shards[1].write_bytes(whole[:-100])
    assert "model-00002-of-00003.safetensors is truncated" in problems()
    shards[1].unlink()
    assert "1 of 3 shards are missing: model-00002-of-00003.safetensors" in problems()
    shards[1].write_bytes(whole)
    pack(shards[1])
    assert problems() == ""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert "pip install 'magi-world[magi1]'" in problems()


def test_the_other_parts_are_examined_too(complete: Path, tmp_path: Path) -> None:
    folder = write_vae(tmp_path / "vae")
    weights = folder / "diffusion_pytorch_model.safetensors"
    save_tensors(weights, {k: v for k, v in load_tensors(weights).items() if "cls" not in k})
    (tmp_path / "special_tokens.npz").write_bytes(b"no")
    t5 = tmp_path / "t5"
    t5.mkdir()
    for file in (complete / "ckpt/t5/t5-v1_1-xxl").iterdir():
        if file.name != "spiece.model":
            (t5 / file.name).write_bytes(file.read_bytes())
    config = json.loads((t5 / "config.json").read_text())
    (t5 / "config.json").write_text(json.dumps(config | {"num_layers": 3, "d_model": 64}))
    problems = {p.part: "; ".join(p.problems) for p in report_weights(tmp_path).parts}
    assert "2 missing: decoder.cls_token, encoder.cls_token" in problems["vae"]
    assert "special_tokens.npz is not a readable npz file" in problems["special_tokens"]
    assert "2 encoder blocks instead of 3" in problems["t5"]
    assert "final_layer_norm.weight is not of shape [64]" in problems["t5"]
    assert "no tokenizer" in problems["t5"]


def test_a_file_of_the_released_size_is_judged_by_its_header(tmp_path: Path) -> None:
    """9 GB that take no room: a true header in front of a hole in the file."""
    with torch.device("meta"):
        state = DiT(PRESETS["magi-1-4.5b-distill"].dit).state_dict()
    header, end = {}, 0
    for name, value in state.items():
        start, end = end, end + 2 * value.numel()
        header[name] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    file = tmp_path / "inference_weight.distill/model.safetensors"
    file.parent.mkdir()
    with file.open("wb") as out:
        out.write(len(raw).to_bytes(8, "little") + raw)
        out.truncate(8 + len(raw) + end)
    (part,) = report_weights(tmp_path, window_size=1).parts
    assert (part.name, part.problems) == ("magi-1-4.5b-distill", ())
    assert part.parameters == 4_459_898_128
    assert 2 * part.parameters < part.memory_bytes["bfloat16"] < 2.02 * part.parameters
    with file.open("r+b") as out:
        out.truncate(8 + len(raw) + end - 1)
    (part,) = report_weights(tmp_path).parts
    assert "is truncated: it has" in part.problems[0]
