"""A world in a batch against the same world alone.

How a matrix library splits a float32 product depends on the number of rows, and on some processors
the last bit of a row with it. So what was computed in a batch is compared up to that: latents to
1e-4, pictures to one grey level in one value of a hundred. What stays in one batch is compared to
the byte, by the tests themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def assert_alike(one: Any, other: Any) -> None:
    """Equal, but for the last bits of numbers; arrays, tensors, lists and mappings of them."""
    if isinstance(one, torch.Tensor):
        one, other = one.numpy(), torch.as_tensor(other).numpy()
    if isinstance(one, np.ndarray) and one.dtype != object:
        other = np.asarray(other)
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        if one.dtype == np.uint8:
            off = np.abs(one.astype(int) - other.astype(int))
            assert off.max(initial=0) <= 1
            assert (off > 0).mean() < 0.01
        elif np.issubdtype(one.dtype, np.floating):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
        else:
            np.testing.assert_array_equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_alike(one[key], other[key])
    elif isinstance(one, list | tuple | np.ndarray):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_alike(a, b)
    elif isinstance(one, float | np.floating):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    else:
        assert one == other
