"""The released family: sizes, presets, and the configuration format."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from magi_world.io.released import PRESETS, preset
from magi_world.model.dit import DiT
from tests.checkpoints import golden_case
from tests.reference.released import (
    config_from_released,
    dit_config_from_released,
    sampler_config_from_released,
)


def released(name: str = "sampler_t2v_base", **changes: Any) -> dict[str, Any]:
    """A golden configuration; ``section__key=value`` changes it, None takes the key out."""
    config = copy.deepcopy(golden_case(name)["config"])
    for path, value in changes.items():
        section, key = path.split("__")
        config[f"{section}_config"][key] = value
        if value is None:
            del config[f"{section}_config"][key]
    return config


@pytest.mark.parametrize(("size", "count"), [("4.5b", 4_459_898_128), ("24b", 23_899_281_936)])
def test_parameter_counts(size: str, count: int) -> None:
    for variant in ("base", "distill"):
        with torch.device("meta"):
            dit = DiT(PRESETS[f"magi-1-{size}-{variant}"].dit)
        assert sum(p.numel() for p in dit.parameters()) == count


def test_fp8_quantises_all_but_the_first_and_last_layer() -> None:
    with torch.device("meta"):
        dit = DiT(PRESETS["magi-1-4.5b-distill-fp8"].dit)
    packed = [n for n, p in dit.named_parameters() if p.dtype == torch.float8_e4m3fn]
    assert {int(n.split(".")[2]) for n in packed} == set(range(1, 33))
    assert len(packed) == 32 * 7


def test_presets_are_the_released_variants() -> None:
    assert list(PRESETS) == [
        f"magi-1-{size}-{variant}"
        for size in ("4.5b", "24b")
        for variant in ("base", "distill", "distill-fp8")
    ]
    for name, config in PRESETS.items():
        assert config.name == name
        assert config.sampler.kv_range == (5, 4, 3, 2)
        assert config.sampler.passes == (3 if name.endswith("base") else 1)
        assert config.sampler.distilled == (not name.endswith("base"))
        assert config.dit.fp8 == name.endswith("fp8")
        assert config.frames_per_chunk == 24
    assert [PRESETS[f"magi-1-{s}-base"].sampler.num_steps for s in ("4.5b", "24b")] == [64, 32]


@pytest.mark.parametrize("window", [1, 2, 4])
def test_distilled_presets_run_with_every_released_step_count(window: int) -> None:
    for steps in (64, 32, 16, 12, 8):  # that the distilled weights were trained for
        config = preset("magi-1-24b-distill").with_options(num_steps=steps, window_size=window)
        assert config.sampler.num_steps == steps


def test_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'magi-2'; it must be one of magi-1-4\.5b-base, "):
        preset("magi-2")


def test_every_value_of_a_released_file_arrives() -> None:
    changed = released(
        "sampler_t2v_24b_like",
        model__layernorm_epsilon=1e-5,
        runtime__cfg_number=1,
        runtime__num_steps=12,
        runtime__window_size=3,
        runtime__chunk_width=4,
        runtime__noise2clean_kvrange=[6, 3],
        runtime__clean_chunk_kvrange=-1,
        runtime__clean_t=0.99,
        runtime__cfg_t_range=[0.0, 0.5],
        runtime__prev_chunk_scales=[1.5, 1.0],
        runtime__text_scales=[7.0, 0.0],
        runtime__scale_factor=0.2,
        runtime__fps=12,
        engine__distill=True,
        engine__fp8_quant=True,
        engine__shortcut_mode="16,16,8",
        engine__distill_nearly_clean_chunk_threshold=0.4,
    )
    config = config_from_released(changed, "mine")
    dit, sampler = config.dit, config.sampler
    assert (dit.layers, dit.hidden, dit.ffn) == (2, 128, 192)
    assert (dit.heads, dit.kv_groups, dit.head_dim) == (8, 2, 16)
    assert (dit.latent_channels, dit.channels, dit.duplicate_channels) == (16, 32, True)
    assert (dit.gated, dit.rescale, dit.eps, dit.fp8) == (True, 0.1, 1e-5, True)
    assert (dit.caption_channels, dit.caption_length, dit.patch) == (32, 800, 2)
    assert (sampler.passes, sampler.distilled, sampler.num_steps) == (1, True, 12)
    assert (sampler.window_size, sampler.chunk_width) == (3, 4)
    assert (sampler.kv_range, sampler.clean_range, sampler.clean_t) == ((6, 3), 3, 0.99)
    assert (sampler.guidance_t, sampler.prev_scales) == ((0.0, 0.5), (1.5, 1.0))
    assert (sampler.text_scales, sampler.shortcut_mode) == ((7.0, 0.0), "16,16,8")
    assert sampler.solo_above_t == 0.4
    assert (config.name, config.frame_size, config.fps) == ("mine", (48, 64), 12)
    assert (config.dtype, config.vae.scale_factor) == ("float32", 0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model__apply_layernorm_1p": False}, "apply_layernorm_1p is False; only True"),
        ({"model__t_patch_size": 2}, "t_patch_size is 2; only 1"),
        ({"model__cond_hidden_ratio": 0.5}, r"cond_hidden_ratio is 0\.5; only 0\.25"),
        ({"model__out_channels": 32}, "out_channels is 32; only 16"),
        ({"model__num_layers": None}, r"model_config\.num_layers is missing"),
        ({"model__half_channel_vae": True, "model__in_channels": 15}, "in_channels is 15"),
        ({"model__params_dtype": "torch.float16"}, r"params_dtype is 'torch\.float16'"),
        ({"runtime__cfg_number": 2}, "passes is 2"),
        ({"engine__distill": True}, "passes is 3, but the weights are distilled"),
        ({"runtime__num_steps": 10}, r"num_steps is 10; it must be divisible by window_size"),
        ({"runtime__video_size_w": 50}, r"width is 50; it must be divisible by 16"),
        ({"runtime__temporal_downsample_factor": 8}, "temporal_downsample_factor is 8; only 4"),
        ({"engine__shortcut_mode": "4,4"}, "shortcut_mode is '4,4'"),
    ],
)
def test_what_cannot_run_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    changes: dict[str, Any] = {"model__out_channels": 15} if "in_channels" in str(change) else {}
    with pytest.raises(ValueError, match=message):
        config_from_released(released(**(changes | change)))


def test_a_missing_section_is_named() -> None:
    config = released()
    del config["engine_config"]
    for read in (dit_config_from_released, sampler_config_from_released, config_from_released):
        with pytest.raises(ValueError, match="no section engine_config"):
            read(config)


def test_sizes_can_be_read_where_the_sampler_would_refuse() -> None:
    config = golden_case("forward_distill")["config"]
    assert dit_config_from_released(config).hidden == 128
    with pytest.raises(ValueError, match="passes must be 1"):
        sampler_config_from_released(config)
