"""The released ``config.json`` files, as configurations of ours."""

from __future__ import annotations

from typing import Any, Literal

from magi_world.config import DiTConfig, MagiConfig, SamplerConfig, VAEConfig, require


def dit_config_from_released(released: dict[str, Any]) -> DiTConfig:
    """Sizes of the transformer from a released ``config.json``.

    Args:
        released: the parsed file, with ``model_config`` and ``engine_config``.

    Raises:
        ValueError: a section or size is missing, or a switch has a value that no released
            checkpoint uses.
    """
    model = _Section(released, "model_config")
    for name, only in (
        ("apply_layernorm_1p", True),
        ("t_patch_size", 1),
        ("cond_hidden_ratio", 0.25),
        ("xattn_cond_hidden_ratio", 1.0),
        ("cond_gating_ratio", 1.0),
    ):
        model.only(name, only)
    channels = model["in_channels"]
    model.only("out_channels", channels)
    duplicate = model.get("half_channel_vae", False)
    require(
        not duplicate or channels % 2 == 0,
        f"model_config.in_channels is {channels}; with half_channel_vae it must be even",
    )
    return DiTConfig(
        layers=model["num_layers"],
        hidden=model["hidden_size"],
        ffn=model["ffn_hidden_size"],
        heads=model["num_attention_heads"],
        kv_groups=model["num_query_groups"],
        head_dim=model["kv_channels"],
        latent_channels=channels // 2 if duplicate else channels,
        duplicate_channels=duplicate,
        gated=model.get("gated_linear_unit", False),
        rescale=model.get("x_rescale_factor", 1),
        caption_channels=model.get("caption_channels", 4096),
        caption_length=model.get("caption_max_length", 800),
        patch=model.get("patch_size", 2),
        eps=model.get("layernorm_epsilon", 1e-6),
        fp8=_Section(released, "engine_config").get("fp8_quant", False),
    )


def sampler_config_from_released(released: dict[str, Any]) -> SamplerConfig:
    """How to denoise, from a released ``config.json``.

    Raises:
        ValueError: a section is missing, or its values cannot run together (distilled weights
            with three passes, steps that the window does not divide, ...).
    """
    runtime, engine = _Section(released, "runtime_config"), _Section(released, "engine_config")
    plain = SamplerConfig()
    return SamplerConfig(
        num_steps=runtime["num_steps"],
        window_size=runtime["window_size"],
        chunk_width=runtime.get("chunk_width", plain.chunk_width),
        passes=runtime["cfg_number"],
        distilled=engine.get("distill", False),
        kv_range=tuple(runtime.get("noise2clean_kvrange", plain.kv_range)),
        clean_kv_range=runtime.get("clean_chunk_kvrange", plain.clean_kv_range),
        clean_t=runtime.get("clean_t", plain.clean_t),
        guidance_t=tuple(runtime.get("cfg_t_range", plain.guidance_t)),
        prev_scales=tuple(runtime.get("prev_chunk_scales", plain.prev_scales)),
        text_scales=tuple(runtime.get("text_scales", plain.text_scales)),
        solo_above_t=engine.get("distill_nearly_clean_chunk_threshold", plain.solo_above_t),
        shortcut_mode=engine.get("shortcut_mode", plain.shortcut_mode),
    )


def config_from_released(
    released: dict[str, Any], name: str = "magi-1", vae: VAEConfig | None = None
) -> MagiConfig:
    """A whole released ``config.json``.

    Args:
        released: the parsed file.
        name: what to call it.
        vae: sizes of the autoencoder, which has a file of its own; None = the released ones.

    Raises:
        ValueError: as :func:`dit_config_from_released` and :func:`sampler_config_from_released`.
    """
    runtime = _Section(released, "runtime_config")
    runtime.only("temporal_downsample_factor", 4)
    dtypes: dict[str, Literal["float32", "bfloat16"]] = {
        "torch.float32": "float32",
        "torch.bfloat16": "bfloat16",
    }
    stored = _Section(released, "model_config").get("params_dtype", "torch.bfloat16")
    require(
        stored in dtypes,
        f"model_config.params_dtype is {stored!r}; it must be one of {', '.join(dtypes)}",
    )
    dit = dit_config_from_released(released)
    if vae is None:
        factor = runtime.get("scale_factor", VAEConfig.scale_factor)
        vae = VAEConfig(latent_channels=dit.latent_channels, scale_factor=factor)
    return MagiConfig(
        name,
        dit,
        vae=vae,
        sampler=sampler_config_from_released(released),
        frame_size=(runtime["video_size_h"], runtime["video_size_w"]),
        fps=runtime.get("fps", 24),
        dtype=dtypes[stored],
    )


class _Section:
    """One section of a released file; errors carry its name."""

    def __init__(self, released: dict[str, Any], name: str) -> None:
        require(
            isinstance(released, dict) and isinstance(released.get(name), dict),
            f"the released configuration has no section {name}",
        )
        self.name, self.values = name, released[name]

    def __getitem__(self, key: str) -> Any:
        require(key in self.values, f"{self.name}.{key} is missing")
        return self.values[key]

    def get(self, key: str, default: Any) -> Any:
        return self.values.get(key, default)

    def only(self, key: str, value: Any) -> None:
        got = self.values.get(key, value)
        require(got == value, f"{self.name}.{key} is {got!r}; only {value!r} is supported")
