"""The quantisation in front of an fp8 product as one Triton kernel (`layers.Fp8Linear.quantise`).

Written plainly it reads and writes the activations five times: to float32, divided, clamped, to
bfloat16, to e4m3. Here they are read once and written once, with the same roundings.

    x  (rows, columns) bfloat16 or float32        divisor  (1,), or (columns,) for one a channel
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _quantise(x, divisor, out, count, columns, MOST: tl.constexpr, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    inside = at < count
    value = tl.load(x + at, inside, 0.0).to(tl.float32)
    share = tl.load(divisor + at % columns, inside, 1.0)
    value = tl.minimum(tl.maximum(tl.div_rn(value, share), -MOST), MOST)
    # To bfloat16 first, as the released code rounds; then to the 3 bits of e4m3, whose step is
    # an eighth of the number's power of two and at least 2^-9: adding 1.5 * 2^23 steps drops what
    # is below. Both by hand, so that every compiler, and the interpreter, rounds to even.
    bits = value.to(tl.int32, bitcast=True)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
    exponent = tl.maximum((bits >> 23) & 0xFF, 127 - 6)
    step = (((exponent - 3 + 23) << 23) | 0x400000).to(tl.float32, bitcast=True)
    value = (bits.to(tl.float32, bitcast=True) + step) - step
    tl.store(out + at, value.to(tl.float8e4nv), inside)


def quantise(x: Tensor, divisor: Tensor, most: float) -> Tensor:
    """(..., in) -> the same in e4m3, divided and clamped to +-most.

    Args:
        divisor: float32, one number, or one for each of ``in`` channels.
    """
    x = x.contiguous()
    out = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)
    grid = (triton.cdiv(x.numel(), BLOCK),)
    _quantise[grid](x, divisor, out, x.numel(), divisor.numel(), MOST=most, SIZE=BLOCK)
    return out
