"""fp8 linear layers of the released fp8 checkpoints (reference section 2).

Shapes: (..., in) bfloat16 -> (..., out) bfloat16. Weights are (1, out, in) float8_e4m3fn.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

E4M3_MAX = 448.0


class Fp8Linear(nn.Module):
    """y = (e4m3(x / scale) @ weight^T) * input_scale * weight_scale, rounded to bfloat16 once.

    per_channel: the division is by ``smooth_scale`` (1, in), otherwise by ``input_scale``, which
        is then stored ``in_features`` times and acts as one number.
    """

    def __init__(self, in_features: int, out_features: int, per_channel: bool) -> None:
        super().__init__()
        self.fast_accumulate = False  # on a GPU: short accumulators, as in the released code
        weight = torch.empty(1, out_features, in_features, dtype=torch.float8_e4m3fn)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.weight_scale = nn.Parameter(torch.empty(1), requires_grad=False)
        length = 1 if per_channel else in_features
        self.input_scale = nn.Parameter(torch.empty(length), requires_grad=False)
        self.smooth_scale: nn.Parameter | None = None
        if per_channel:
            self.smooth_scale = nn.Parameter(torch.empty(1, in_features), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out) in bfloat16."""
        return self.product(self.quantise(x))

    def quantise(self, x: Tensor) -> Tensor:
        """(..., in) -> the same in e4m3."""
        divisor = self.input_scale[0] if self.smooth_scale is None else self.smooth_scale
        y = (x.float() / divisor).clamp(-E4M3_MAX, E4M3_MAX)
        return y.bfloat16().to(torch.float8_e4m3fn)

    def product(self, q: Tensor) -> Tensor:
        """(..., in) e4m3 -> (..., out) in bfloat16."""
        step, weight = self.input_scale[0], self.weight[0]
        if q.is_cuda:
            flat = torch._scaled_mm(
                q.view(-1, q.shape[-1]),
                weight.t(),
                scale_a=step,
                scale_b=self.weight_scale[0],
                out_dtype=torch.bfloat16,
                use_fast_accum=self.fast_accumulate,
            )
            return flat.view(*q.shape[:-1], weight.shape[0])
        # A product of two e4m3 numbers is exact in float32, so this is the same sum.
        y = F.linear(q.float(), weight.float())
        return (y * (step * self.weight_scale)).bfloat16()
