"""The one attention function. Every caller picks keys by slicing, so there is never a mask.

Shapes: B batch, Sq query rows, Sk key rows, Hq query heads, Hkv key/value groups, D head dim.
Query head i reads group i // (Hq / Hkv).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Literal, cast, get_args

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


def attention_with_lse(
    q: Tensor, k: Tensor, v: Tensor, backend: Backend = "sdpa"
) -> tuple[Tensor, Tensor]:
    """`attention` and the log-sum-exp of every row's scores, so that parts can be merged.

    Returns:
        (B, Sq, Hq, D) in q's dtype, and (B, Sq, Hq) float32.
    """
    if backend == "flash":
        return _flash_with_lse(q, k, v)
    if backend == "reference" or (q.is_cuda and q.dtype == torch.float32):
        return _reference_with_lse(q, k, v)
    return _sdpa_with_lse(q, k, v)


def _sdpa_with_lse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    # PyTorch's kernels know the log-sum-exp; its public function does not hand it out.
    b, sq, hq, d = q.shape
    groups = k.shape[2]
    rows = q.reshape(b, sq, groups, hq // groups, d).permute(0, 2, 3, 1, 4)
    rows = rows.reshape(b, groups, hq // groups * sq, d)
    kernel = torch.ops.aten._scaled_dot_product_flash_attention
    if not q.is_cuda:
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out, lse = kernel(rows, k.transpose(1, 2), v.transpose(1, 2))[:2]
    out = out.reshape(b, groups, hq // groups, sq, d).permute(0, 3, 1, 2, 4).reshape(b, sq, hq, d)
    lse = lse.reshape(b, groups, hq // groups, sq).permute(0, 3, 1, 2).reshape(b, sq, hq)
    return out, lse.float()


def _reference_with_lse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    share = q.shape[2] // k.shape[2]
    k, v = (x.float().repeat_interleave(share, dim=2) for x in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q.float(), k) * q.shape[-1] ** -0.5
    out = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).to(q.dtype)
    return out, scores.logsumexp(-1).transpose(1, 2)


def _flash_with_lse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    module = importlib.import_module("flash_attn")
    out, lse, _ = module.flash_attn_func(q, k, v, return_attn_probs=True)
    return out, lse.transpose(1, 2)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attention by the plain formula: q (.., Sq, H, hd), k v (.., Sk, R, hd) -> like q.

    On a CPU this is several times faster than the fused kernels, forward and backward, for tens of
    tokens. bias: added to the scores, broadcast to (.., R, H / R, Sq, Sk).
    """
    r, d = k.shape[-2:]
    q = q.unflatten(-2, (r, -1)).movedim(-4, -2)  # (.., R, H/R, Sq, hd)
    k, v = (x.movedim(-3, -2).unsqueeze(-3) for x in (k, v))  # (.., R, 1, Sk, hd)
    share, rows = q.shape[-3:-1]
    flat = q.flatten(-3, -2).unsqueeze(-3) * d**-0.5
    scores = flat @ k.transpose(-1, -2)  # (.., R, 1, H/R * Sq, Sk)
    if bias is not None:
        scores = scores + bias
    out = (scores.softmax(-1).to(v.dtype) @ v).squeeze(-3).unflatten(-2, (share, rows))
    return out.movedim(-2, -4).flatten(-3, -2)


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
    return cast(Backend, backend)


def flash_version() -> int | None:
    """Major version of the flash-attn package that would be used, or None.

    3 is the fastest where it is installed (Hopper only), 2 runs everywhere; 4 is taken where it
    is the only one.
    """
    if _found("flash_attn_interface"):
        return 3
    if _found("flash_attn_2_cuda"):
        return 2
    return 4 if _found("flash_attn") and _found("flash_attn.cute") else None


def _found(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


@functools.cache
def _flash_kernel() -> Callable[[Tensor, Tensor, Tensor], Tensor | tuple[Tensor, ...]]:
    names = {2: "flash_attn", 3: "flash_attn_interface", 4: "flash_attn.cute"}
    version = flash_version()
    if version is None:
        raise ValueError("no flash-attn package is installed")
    return importlib.import_module(names[version]).flash_attn_func


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
    out = _flash_kernel()(q, k, v)
    return out[0] if isinstance(out, tuple) else out


def _reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    share = q.shape[2] // k.shape[2]
    k, v = (x.float().repeat_interleave(share, dim=2) for x in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q.float(), k) * q.shape[-1] ** -0.5
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).to(q.dtype)
