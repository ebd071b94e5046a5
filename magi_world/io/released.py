"""The released MAGI-1 family: its presets."""

from __future__ import annotations

from dataclasses import replace

from magi_world.config import DiTConfig, MagiConfig, SamplerConfig, require

# Step counts that distilled weights were trained for.
DISTILLED_STEPS = (64, 32, 16, 12, 8)

_DIT_4_5B = DiTConfig(layers=34, hidden=3072, ffn=12288, heads=24, kv_groups=8, head_dim=128)
_DIT_24B = DiTConfig(
    layers=48,
    hidden=6144,
    ffn=16384,
    heads=48,
    kv_groups=8,
    head_dim=128,
    duplicate_channels=True,
    gated=True,
    rescale=0.1,
)
_DISTILLED = SamplerConfig(num_steps=16, passes=1, distilled=True)


def _family(size: str, dit: DiTConfig, base_steps: int) -> dict[str, MagiConfig]:
    variants = {
        "base": (dit, SamplerConfig(num_steps=base_steps)),
        "distill": (dit, _DISTILLED),
        "distill-fp8": (replace(dit, fp8=True), _DISTILLED),
    }
    return {
        (name := f"magi-1-{size}-{variant}"): MagiConfig(name, sizes, sampler=sampler)
        for variant, (sizes, sampler) in variants.items()
    }


PRESETS: dict[str, MagiConfig] = {
    **_family("4.5b", _DIT_4_5B, base_steps=64),
    **_family("24b", _DIT_24B, base_steps=32),
}


def preset(name: str) -> MagiConfig:
    """One of :data:`PRESETS`.

    Raises:
        ValueError: unknown name, with those there are.
    """
    require(name in PRESETS, f"preset is {name!r}; it must be one of {', '.join(PRESETS)}")
    return PRESETS[name]
