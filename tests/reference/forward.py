"""The transformer alone: velocities for given latents, times, captions and key ranges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from magi_world.config import DiTConfig, SamplerConfig
from magi_world.io.safetensors_io import load_tensors
from magi_world.model.attention import attention
from magi_world.model.dit import DiT, Pass, parameter_dtype
from magi_world.sampling.schedule import step_embedding
from tests.reference.compare import relative_error
from tests.reference.released import dit_config_from_released


def check_forward(
    case: dict,
    tensors: dict[str, Tensor],
    folder: Path,
    make_dit: Callable[[DiTConfig], DiT] = DiT,
) -> dict[str, float]:
    """Relative error of each expected velocity."""
    config = case["config"]
    dtype = getattr(torch, config["model_config"]["params_dtype"].removeprefix("torch."))
    weights = folder / f"{case['weights']}.safetensors"
    dit = load_reference_dit(weights, config, dtype, make_dit)
    width = config["runtime_config"]["chunk_width"]
    dit = dit.to(tensors["x"].device)
    x = tensors["x"].unflatten(2, (-1, width)).transpose(1, 2)
    frames = torch.arange(x.shape[1] * width).view(1, -1, width)
    distilled = config["engine_config"]["distill"]
    interval = first_interval(case["num_steps"], config) if distilled else None
    lens = tensors["caption_lens"].tolist()
    captions = [c[:n] for c, n in zip(tensors["caption"][0], lens, strict=True)]
    errors = {}
    for name, conditional in (("velocity", True), ("velocity_uncond_adaln", False)):
        own = TokenRanges(tensors["kv_range"].tolist())
        text = OwnCaption([dit.text_keys(c) for c in captions])
        with torch.no_grad():
            v = dit(x, Pass(tensors["t"], frames, own, text, conditional, interval))
        errors[name] = relative_error(v.transpose(1, 2).flatten(2, 3), tensors[name])
    return errors


def first_interval(num_steps: int, config: dict) -> float | None:
    """The second time embedding's scalar on the first step of a stage (reference section 3)."""
    mode = config["engine_config"]["shortcut_mode"]
    sampler = SamplerConfig(
        num_steps, window_size=1, passes=1, distilled=True, kv_range=(1,), shortcut_mode=mode
    )
    return step_embedding(sampler, 0)


def load_reference_dit(
    path: Path,
    config: dict,
    dtype: torch.dtype,
    make_dit: Callable[[DiTConfig], DiT] = DiT,
) -> DiT:
    """A tiny golden model; in bfloat16, float32 files are rounded as a bf16 checkpoint would be."""
    dit_config = dit_config_from_released(config)
    with torch.device("meta"):
        dit = make_dit(dit_config)
    state = {}
    for name, value in load_tensors(path).items():
        stored = value
        if dtype == torch.bfloat16 and not dit_config.fp8 and name != "rope.bands":
            stored = value.to(dtype)
        state[name] = stored.to(parameter_dtype(name, stored.dtype, dtype))
    dit.load_state_dict(state, strict=True, assign=True)
    return dit.requires_grad_(False)


class TokenRanges:
    """Self-attention where chunk i reads tokens [start, end) of the whole sequence."""

    def __init__(self, ranges: list[list[int]]) -> None:
        self.ranges = ranges

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        self.k, self.v = k.flatten(1, 2), v.flatten(1, 2)

    def read(self, layer: int, q: Tensor) -> Tensor:
        rows = [
            attention(q[:, i], self.k[:, start:end], self.v[:, start:end])
            for i, (start, end) in enumerate(self.ranges)
        ]
        return torch.stack(rows, dim=1)


class OwnCaption:
    """Cross-attention where chunk i reads caption i."""

    def __init__(self, keys: list[list[tuple[Tensor, Tensor]]]) -> None:
        self.keys = keys

    def __call__(self, layer: int, q: Tensor) -> Tensor:
        rows = [
            attention(q[:, i], keys[layer][0][None], keys[layer][1][None])
            for i, keys in enumerate(self.keys)
        ]
        return torch.stack(rows, dim=1)
