"""Single parts held against their numbers: rotary angles and fp8 linear layers."""

from __future__ import annotations

import torch
from torch import Tensor

from magi_world.model.layers import Fp8Linear, Rope
from tests.reference.compare import relative_error


def check_rope(case: dict, tensors: dict[str, Tensor]) -> dict[str, float]:
    """Relative error of each table of sines and cosines; the cases keep every n-th row."""
    rope = Rope(case["head_dim"])
    rope.load_state_dict({"bands": tensors.pop("bands")})
    errors = {}
    for name, want in tensors.items():
        frames, height, width = map(int, name.removeprefix("sincos.").split("."))
        sin, cos = rope(torch.arange(frames).view(1, 1, -1), height, width)
        got = torch.cat([sin, cos], dim=-1)[0, 0, :, 0].detach()
        errors[name] = relative_error(got[:: max(1, frames * height * width // 500)], want)
    return errors


def check_fp8_linear(case: dict, tensors: dict[str, Tensor]) -> dict[str, float]:
    """Relative error of the per-tensor and the per-channel layer."""
    errors, x = {}, tensors.pop("x")
    for kind in {name.split(".")[0] for name in tensors}:
        own = {k.split(".")[1]: v for k, v in tensors.items() if k.startswith(f"{kind}.")}
        want = own.pop("out")
        out_features, in_features = own["weight"].shape[-2:]
        layer = Fp8Linear(in_features, out_features, per_channel=kind == "per_channel")
        layer.load_state_dict(own, assign=True)
        errors[kind] = relative_error(layer(x).detach(), want)
    return errors
