"""Released folders, found wherever they lie and opened part by part."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from magi_world.config import DiTConfig, MagiConfig, SamplerConfig
from magi_world.io.read_released import open_dit, open_text, open_vae
from magi_world.io.released import find_layout
from magi_world.io.safetensors_io import WeightsError, load_tensors
from magi_world.model.dit import parameter_dtype
from magi_world.model.text import save_captions
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

GELU = dit_config_from_released(golden_case("forward_gelu")["config"])
SWIGLU = dit_config_from_released(golden_case("forward_swiglu_24b_like")["config"])
FP8 = dit_config_from_released(golden_case("forward_fp8")["config"])
ONE_PASS = SamplerConfig(num_steps=8, passes=1, distilled=True)
BASE = MagiConfig("tiny-base", GELU)
DISTILL = MagiConfig("tiny-distill", GELU, sampler=ONE_PASS)
QUANT = MagiConfig("tiny-fp8", FP8, sampler=ONE_PASS)


@pytest.fixture(params=["", "ckpt", "snapshots/0a1b/ckpt"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A download of everything, at several depths."""
    base = tmp_path / request.param
    write_dit(base / "magi/tiny_base/inference_weight")
    write_dit(base / "magi/tiny_distill/inference_weight.distill")
    write_dit(base / "magi/tiny_quant/inference_weight.fp8.distill", "weights_fp8")
    write_vae(base / "vae")
    write_special_tokens(tmp_path / "example/assets/special_tokens.npz")
    (base / "t5/t5-v1_1-xxl").mkdir(parents=True)
    (base / "t5/t5-v1_1-xxl/config.json").write_text('{"model_type": "t5", "d_model": 32}')
    (tmp_path / ".cache").mkdir()
    write_dit(tmp_path / ".cache/inference_weight")
    (base / "config.json").write_text('["somebody else\'s"]')
    (base / "magi/config.json").write_text("{ not json")
    return tmp_path


def test_all_parts_are_found_at_any_depth(root: Path) -> None:
    layout = find_layout(root)
    assert len(layout.dits) == 3
    assert layout.dit(BASE).name == "inference_weight"
    assert layout.dit(DISTILL).name == "inference_weight.distill"
    assert layout.dit(QUANT).name == "inference_weight.fp8.distill"
    assert layout.part("vae").name == "vae"
    assert layout.part("t5").name == "t5-v1_1-xxl"
    assert layout.part("special_tokens").name == "special_tokens.npz"


def test_a_part_can_be_named_itself(tmp_path: Path) -> None:
    folder = write_dit(tmp_path / "inference_weight")
    assert find_layout(folder).dit(BASE) == folder
    assert find_layout(tmp_path).dit(BASE) == folder


def test_of_several_sizes_the_right_one_is_taken(tmp_path: Path) -> None:
    other = replace(BASE, dit=replace(GELU, layers=4, fp8=False))
    small = write_dit(tmp_path / "a/inference_weight")
    assert find_layout(tmp_path).dit(BASE) == small
    with pytest.raises(FileNotFoundError, match="4 layers of width 128") as caught:
        find_layout(tmp_path).dit(other)
    assert f"{small} (2 layers of width 128)" in str(caught.value)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    layout = find_layout(tmp_path)
    with pytest.raises(FileNotFoundError, match="no inference_weight at all"):
        layout.dit(BASE)
    with pytest.raises(FileNotFoundError, match="ViTVAE"):
        layout.part("vae")
    with pytest.raises(FileNotFoundError, match="t5-v1_1-xxl"):
        layout.part("t5")
    with pytest.raises(FileNotFoundError, match=r"special_tokens\.npz"):
        layout.part("special_tokens")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_layout(tmp_path / "nowhere")
    write_dit(tmp_path / "inference_weight.distill")
    with pytest.raises(FileNotFoundError, match=r"there is .*inference_weight\.distill"):
        find_layout(tmp_path).dit(BASE)


@pytest.mark.parametrize("form", ["single", "shards", "packed"])
@pytest.mark.parametrize(
    ("config", "weights"),
    [(GELU, "weights_gelu"), (SWIGLU, "weights_swiglu"), (FP8, "weights_fp8")],
)
def test_the_transformer_is_loaded_from_every_form(
    config: DiTConfig, weights: str, form: str, tmp_path: Path
) -> None:
    folder = write_dit(tmp_path / "inference_weight", weights)
    want = load_tensors(GOLDEN / f"{weights}.safetensors")
    if form != "single":
        (folder / "model.safetensors").unlink()
        shards = write_shards(folder, want, count=3)
        if form == "packed":
            pack(shards[0])
            pack(shards[2])
    dit = open_dit(folder, config, "cpu", torch.bfloat16)
    assert not dit.training
    state = dit.state_dict()
    assert state.keys() == want.keys()
    for name, value in state.items():
        dtype = parameter_dtype(name, want[name].dtype, torch.bfloat16)
        assert value.dtype == dtype, name
        assert torch.equal(value.float(), want[name].to(dtype).float()), name
    assert not any(p.requires_grad for p in dit.parameters())
    with pytest.raises(ValueError, match="float16"):
        open_dit(folder, config, "cpu", torch.float16)


def test_weights_of_another_variant_are_refused(tmp_path: Path) -> None:
    folder = write_dit(tmp_path / "inference_weight", "weights_gelu")
    with pytest.raises(WeightsError, match=r"missing: .*; \d+ wrong shape: "):
        open_dit(folder, FP8)
    with pytest.raises(WeightsError, match=r"x_embedder\.weight|linear_fc1"):
        open_dit(folder, SWIGLU)


@pytest.mark.parametrize("case", ["vae", "vae_final_proj"])
def test_the_autoencoder_is_loaded(case: str, tmp_path: Path) -> None:
    vae = open_vae(write_vae(tmp_path / "vae", case), dtype=torch.float32)
    latent = load_tensors(GOLDEN / f"{case}.safetensors")
    got = vae.encode(latent["video"])
    error = (got - latent["latent"]).abs().max() / latent["latent"].abs().max()
    assert error < 1e-4


def test_a_bad_autoencoder_folder_is_named(tmp_path: Path) -> None:
    folder = write_vae(tmp_path / "vae")
    file = folder / "config.json"
    good = json.loads(file.read_text())
    for broken, message in (
        ("{", "not valid JSON"),
        (json.dumps(good | {"_class_name": "AutoencoderKL"}), "ViTVAE"),
        (json.dumps({"_class_name": "ViTVAE"}), "no section ddconfig"),
        (json.dumps(good | {"ddconfig": {}}), r"ddconfig\.\w+ is missing"),
        (json.dumps(good | {"ddconfig": good["ddconfig"] | {"norm_code": True}}), "norm_code"),
    ):
        file.write_text(broken)
        with pytest.raises(ValueError, match=message):
            open_vae(folder)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        open_vae(folder)


def test_text_comes_from_t5_or_from_saved_features(tmp_path: Path) -> None:
    write_special_tokens(tmp_path / "special_tokens.npz")
    saved = tmp_path / "captions.safetensors"
    save_captions(saved, {"turn left": torch.ones(3, 32)})
    text = open_text(find_layout(tmp_path), saved=saved)
    assert text.encode("turn left")[:, 0].tolist() == [14, 1, 1, 1, 1]
    with pytest.raises(FileNotFoundError, match="no T5"):
        open_text(find_layout(tmp_path))
    write_t5(tmp_path / "ckpt/t5/t5-v1_1-xxl")
    features = open_text(find_layout(tmp_path), caption_length=10).encode("turn left, now")
    assert features[:2, 0].tolist() == [14, 1]
    assert features.shape == (10, 32)
