"""How a result is held against a reference number."""

from __future__ import annotations

from torch import Tensor


def relative_error(got: Tensor, want: Tensor) -> float:
    """max |got - want| / max |want|; shapes must agree."""
    if got.shape != want.shape:
        raise AssertionError(f"shape {tuple(got.shape)}, expected {tuple(want.shape)}")
    got, want = got.cpu(), want.cpu()
    difference = (got.double() - want.double()).abs().max()
    return float(difference / want.double().abs().max().clamp(min=1e-30))
