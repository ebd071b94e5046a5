"""What cannot run together is refused when it is configured, with what would be right."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from magi_world.config import DiTConfig, SamplerConfig, VAEConfig
from magi_world.io.released import PRESETS
from magi_world.model.dit import DiT


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"distilled": True, "passes": 3}, ["passes is 3", "must be 1"]),
        ({"passes": 2}, ["passes is 2"]),
        ({"num_steps": 10, "window_size": 4}, ["num_steps is 10", "window_size"]),
        ({"num_steps": 6, "window_size": 3}, ["num_steps is 6", "key ranges (4"]),
        ({"num_steps": 0}, ["num_steps is 0", "positive"]),
        ({"window_size": 0}, ["window_size is 0"]),
        ({"kv_range": (5, 0, 3, 2)}, ["kv_range", "at least 1"]),
        ({"clean_kv_range": 0}, ["clean_kv_range is 0"]),
        ({"text_scales": (7.5,)}, ["same length"]),
        ({"shortcut_mode": "8,8"}, ["shortcut_mode is '8,8'"]),
        ({"shift": 0}, ["shift is 0", "0.01 to 100"]),
        ({"shift": float("nan")}, ["shift is nan"]),
    ],
)
def test_sampler_refuses(options: dict, words: list[str]) -> None:
    with pytest.raises(ValueError, match="SamplerConfig") as error:
        SamplerConfig(**options)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("steps", [64, 32, 16, 12, 8, 4])
@pytest.mark.parametrize("window", [1, 2, 4])
def test_every_step_count_of_the_reference(steps: int, window: int) -> None:
    config = SamplerConfig(num_steps=steps, window_size=window, passes=1, distilled=True)
    assert config.steps_per_stage * window == steps


@pytest.mark.parametrize(
    ("clean", "history"), [(1, 4), (-1, 4), (3, 4), (7, 7)], ids=["one", "last", "three", "seven"]
)
def test_history_covers_every_range(clean: int, history: int) -> None:
    assert SamplerConfig(clean_kv_range=clean).history == history


def test_frame_size_must_divide() -> None:
    config = PRESETS["magi-1-4.5b-base"]
    with pytest.raises(ValueError, match=r"height is 250.*divisible by 16.*240 or 256"):
        replace(config, frame_size=(250, 256))
    assert replace(config, frame_size=(256, 16)).latent_size == (32, 2)


def test_latent_channels_must_agree() -> None:
    config = PRESETS["magi-1-4.5b-base"]
    with pytest.raises(ValueError, match="16 latent channels but the VAE gives 8"):
        replace(config, vae=VAEConfig(latent_channels=8))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kv_groups": 5}, "kv_groups is 5"),
        ({"head_dim": 12}, "head_dim is 12"),
        ({"layers": 0}, "layers is 0"),
        ({"caption_length": 20}, "caption_length is 20"),
        ({"rescale": 0.0}, "rescale is 0"),
    ],
)
def test_dit_refuses(options: dict, words: str) -> None:
    sizes = {"layers": 2, "hidden": 64, "ffn": 64, "heads": 8, "kv_groups": 2, "head_dim": 16}
    with pytest.raises(ValueError, match=words):
        DiTConfig(**{**sizes, **options})


@pytest.mark.parametrize(
    ("name", "count"), [("magi-1-4.5b-base", 4_459_898_128), ("magi-1-24b-base", 23_899_281_936)]
)
def test_released_sizes(name: str, count: int) -> None:
    with torch.device("meta"):
        dit = DiT(PRESETS[name].dit)
    assert sum(p.numel() for p in dit.parameters()) == count


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_consistent(name: str) -> None:
    config = PRESETS[name]
    assert config.name == name
    assert config.sampler.distilled == ("distill" in name)
    assert config.dit.fp8 == name.endswith("fp8")
    assert config.sampler.passes == (1 if "distill" in name else 3)
