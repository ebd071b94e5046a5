"""The one attention function. Every caller picks keys by slicing, so there is never a mask.

Shapes: B batch, Sq query rows, Sk key rows, Hq query heads, Hkv key/value groups, D head dim.
Query head i reads group i // (Hq / Hkv).
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from magi_world.model.backends import Backend, check_backend, installed

__all__ = ["Backend", "attend_ranges", "attention", "check_backend", "plain_attention"]

# cuDNN is the fastest of PyTorch's kernels on Hopper, but builds a plan for every exact shape:
# right for video, whose chunks are few lengths, and wrong for text, where every prompt has its own.
_VIDEO = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
_TEXT = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.MATH,
]


def attention(
    q: Tensor, k: Tensor, v: Tensor, backend: Backend = "sdpa", text: bool = False
) -> Tensor:
    """softmax(q k^T / sqrt(D)) v over all given keys.

    Args:
        q: (B, Sq, Hq, D).
        k, v: (B, Sk, Hkv, D), Hkv a divisor of Hq.
        backend: which kernel, as `magi_world.model.backends.settle_backend` gives it.
        text: the number of keys is that of a prompt, and so seldom the same twice.

    Returns:
        (B, Sq, Hq, D) in q's dtype.
    """
    if backend.startswith("flash"):
        out = _flash_kernel(backend)(q, k, v)
        return out[0] if isinstance(out, tuple) else out
    if backend == "reference":
        return _reference(q, k, v)
    return _sdpa(q, k, v, text)


def attend_ranges(q: Tensor, k: Tensor, v: Tensor, q_ranges: Tensor, k_ranges: Tensor) -> Tensor:
    """Attention of rows of q over rows of k, by MagiAttention's kernel, in one call.

    Args:
        q: (Tq, Hq, D), all query rows of a batch.    k, v: (Tk, Hkv, D).
        q_ranges, k_ranges: (R, 2) int32, half-open: rows q_ranges[r] read rows k_ranges[r], all of
            them. No query row is in two ranges.

    Returns:
        (Tq, Hq, D) in q's dtype.
    """
    return _ranges_kernel()(q, k, v, q_ranges, k_ranges)[0]


def reference_ranges(
    q: Tensor, k: Tensor, v: Tensor, q_ranges: Tensor, k_ranges: Tensor
) -> tuple[Tensor, Tensor]:
    """The same as MagiAttention's kernel, by the formula: output and log-sum-exp (Tq, Hq)."""
    out = torch.zeros_like(q)
    lse = torch.full(q.shape[:2], -torch.inf, device=q.device)
    share = q.shape[1] // k.shape[1]
    for (a, b), (c, d) in zip(q_ranges.tolist(), k_ranges.tolist(), strict=True):
        keys, values = (x[c:d].float().repeat_interleave(share, dim=1) for x in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q[a:b].float(), keys) * q.shape[-1] ** -0.5
        out[a:b] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), values).to(q.dtype)
        lse[a:b] = scores.logsumexp(-1).t()
    return out, lse


def _ranges_kernel() -> Callable[..., tuple[Tensor, object]]:
    return importlib.import_module("magi_attention.api").flex_flash_attn_func


def attention_with_lse(
    q: Tensor, k: Tensor, v: Tensor, backend: Backend = "sdpa"
) -> tuple[Tensor, Tensor]:
    """`attention` and the log-sum-exp of every row's scores, so that parts can be merged.

    Returns:
        (B, Sq, Hq, D) in q's dtype, and (B, Sq, Hq) float32.
    """
    if backend in ("flash", "flash2"):
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


@functools.cache
def _flash_kernel(backend: str) -> Callable[[Tensor, Tensor, Tensor], Tensor | tuple[Tensor, ...]]:
    module = "flash_attn" if backend == "flash2" else installed(backend)
    if module is None:
        raise ValueError(f"attention is {backend!r}, which is not installed")
    return importlib.import_module(module).flash_attn_func


def _sdpa(q: Tensor, k: Tensor, v: Tensor, text: bool) -> Tensor:
    # Without a mask every query row is on its own, so the query heads that share a group can lie
    # side by side on the row axis. Keys are then neither repeated nor copied.
    b, sq, hq, d = q.shape
    groups = k.shape[2]
    rows = q.view(b, sq, groups, hq // groups, d).permute(0, 2, 3, 1, 4)
    rows = rows.reshape(b, groups, hq // groups * sq, d)
    k, v = k.transpose(1, 2), v.transpose(1, 2)
    if q.is_cuda:
        with sdpa_kernel(_TEXT if text else _VIDEO, set_priority=True):
            out = F.scaled_dot_product_attention(rows, k, v)
    else:
        out = F.scaled_dot_product_attention(rows, k, v)
    return out.view(b, groups, hq // groups, sq, d).permute(0, 3, 1, 2, 4).reshape(b, sq, hq, d)


def _reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    share = q.shape[2] // k.shape[2]
    k, v = (x.float().repeat_interleave(share, dim=2) for x in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q.float(), k) * q.shape[-1] ** -0.5
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).to(q.dtype)
