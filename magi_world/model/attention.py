"""The one attention function. Every caller picks keys by slicing, so there is never a mask.

Shapes: B batch, Sq query rows, Sk key rows, Hq query heads, Hkv key/value groups, D head dim.
Query head i reads group i // (Hq / Hkv).
"""

from __future__ import annotations

import importlib.util
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Backend = Literal["sdpa", "flash", "reference"]


def attention(q: Tensor, k: Tensor, v: Tensor, backend: Backend = "sdpa") -> Tensor:
    """softmax(q k^T / sqrt(D)) v over all given keys.

    Args:
        q: (B, Sq, Hq, D).
        k, v: (B, Sk, Hkv, D), Hkv a divisor of Hq.
        backend: "sdpa" (PyTorch), "flash" (the flash-attn package) or "reference" (the formula).

    Returns:
        (B, Sq, Hq, D) in q's dtype.
    """
    if backend == "sdpa":
        return _sdpa(q, k, v)
    if backend == "flash":
        return _flash(q, k, v)
    return _reference(q, k, v)


def check_backend(backend: str) -> Backend:
    """Refuse a backend that does not exist or is not installed here.

    Raises:
        ValueError: unknown name, or "flash" without the flash-attn package.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"attention is {backend!r}; it must be one of {get_args(Backend)}")
    if backend == "flash" and flash_version() is None:
        raise ValueError(
            "attention is 'flash', but no flash-attn package is installed; "
            "install it with: pip install 'magi-world[flash]', or use attention='sdpa'"
        )
    return backend


def flash_version() -> int | None:
    """Major version of the newest flash-attn package that can be imported (4, 3, 2) or None."""
    if importlib.util.find_spec("flash_attn") is not None:
        if importlib.util.find_spec("flash_attn.cute") is not None:
            return 4
        if importlib.util.find_spec("flash_attn_interface") is not None:
            return 3
        return 2
    return 3 if importlib.util.find_spec("flash_attn_interface") is not None else None


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    # Without a mask every query row is on its own, so the query heads that share a group can lie
    # side by side on the row axis. Keys are then neither repeated nor copied.
    b, sq, hq, d = q.shape
    groups = k.shape[2]
    rows = q.view(b, sq, groups, hq // groups, d).permute(0, 2, 3, 1, 4)
    rows = rows.reshape(b, groups, hq // groups * sq, d)
    out = F.scaled_dot_product_attention(rows, k.transpose(1, 2), v.transpose(1, 2))
    return out.view(b, groups, hq // groups, sq, d).permute(0, 3, 1, 2, 4).reshape(b, sq, hq, d)


def _flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if flash_version() == 4:
        from flash_attn.cute import flash_attn_func
    elif flash_version() == 3:
        from flash_attn_interface import flash_attn_func
    else:
        from flash_attn import flash_attn_func
    out = flash_attn_func(q, k, v)
    return out[0] if isinstance(out, tuple) else out


def _reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    share = q.shape[2] // k.shape[2]
    k, v = (x.float().repeat_interleave(share, dim=2) for x in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q.float(), k) * q.shape[-1] ** -0.5
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).to(q.dtype)
