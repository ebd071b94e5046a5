"""The one attention function, and which kernels can run it.

Every caller picks keys by slicing, so there is never a mask. A kernel is chosen once, when a stream
is built; what cannot run, or is known to answer wrongly, is refused there, not at the first step.

Shape legend
    B  batch            Sq query rows       Sk key rows      D  head dim
    Hq query heads      Hkv key/value groups; query head i reads group i // (Hq / Hkv)
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Backend = Literal["auto", "sdpa", "flash", "flash2", "flash3", "flash4", "magi", "reference"]
FLASH = ("flash3", "flash4", "flash2")  # fastest first

# Modules that hold each kernel; the first one found is used.
MODULES = {
    "flash2": ("flash_attn_2_cuda",),
    "flash3": ("flash_attn_interface", "fa3_fwd_interface"),
    "flash4": ("flash_attn.cute",),
    "magi": ("magi_attention.api",),
}
INSTALL = {
    "flash2": "pip install 'magi-world[flash]'",
    "flash3": "pip install fa3-fwd",
    "flash4": "pip install flash-attn-4",
    "magi": "build MagiAttention, as its own page says",
}
_KNOWN_WRONG = {
    "sage": "SageAttention can return uninitialised memory on Hopper, and rounds queries and keys "
    "to int8; it is not offered",
}
# (smallest, largest) compute capability, and head sizes.
_CARDS = {
    "flash2": ((8, 0), (12, 9)),
    "flash3": ((9, 0), (9, 9)),
    "flash4": ((9, 0), (12, 9)),
    "magi": ((9, 0), (10, 9)),
}
_HEADS = {"flash2": 256, "flash3": 256, "flash4": 128, "magi": 128}

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
        backend: which kernel, as `magi_world.model.attention.settle_backend` gives it.
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


def _sdpa(q: Tensor, k: Tensor, v: Tensor, text: bool) -> Tensor:
    # Without a mask every query row is on its own, so the query heads that share a group can lie
    # side by side on the row axis. Keys are then neither repeated nor copied.
    b, sq, hq, d = q.shape
    groups = k.shape[2]
    k, v = k.transpose(1, 2), v.transpose(1, 2)
    if groups == hq and not q.is_cuda:  # the same without the work of regrouping
        return F.scaled_dot_product_attention(q.transpose(1, 2), k, v).transpose(1, 2).contiguous()
    rows = q.view(b, sq, groups, hq // groups, d).permute(0, 2, 3, 1, 4)
    rows = rows.reshape(b, groups, hq // groups * sq, d)
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


@functools.cache
def _flash_kernel(backend: str) -> Callable[[Tensor, Tensor, Tensor], Tensor | tuple[Tensor, ...]]:
    module = "flash_attn" if backend == "flash2" else installed(backend)
    if module is None:
        raise ValueError(f"attention is {backend!r}, which is not installed")
    return importlib.import_module(module).flash_attn_func


def _ranges_kernel() -> Callable[..., tuple[Tensor, object]]:
    return importlib.import_module("magi_attention.api").flex_flash_attn_func


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


@dataclass(frozen=True)
class Setting:
    """What a backend has to run: where, in which precision, heads of which size.

    capability: of the card, (major, minor); None is not known, or no card.
    """

    device: torch.device
    dtype: torch.dtype
    head_dim: int
    capability: tuple[int, int] | None = None

    @staticmethod
    def of(device: torch.device, dtype: torch.dtype, head_dim: int) -> Setting:
        """With the capability of the card that is there."""
        card = device.type == "cuda" and torch.cuda.is_available()
        return Setting(
            device, dtype, head_dim, torch.cuda.get_device_capability(device) if card else None
        )


def installed(name: str) -> str | None:
    """The module of a backend that is installed here, or None."""
    return next((module for module in MODULES[name] if _found(module)), None)


def _found(module: str) -> bool:
    package = module.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        return False
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a package of that name which is something else
        return False


def obstacle(name: str, setting: Setting | None = None) -> str | None:
    """Why a backend cannot be used, or None where it can; without a setting, by name alone."""
    if name in ("auto", "sdpa", "reference"):
        return None
    if name == "flash":
        reasons = {n: obstacle(n, setting) for n in FLASH}
        if None in reasons.values():
            return None
        there = [n for n in FLASH if installed(n)]
        if not there:
            return f"no flash-attn package is installed; install it with: {INSTALL['flash2']}"
        return reasons[there[0]]
    if installed(name) is None:
        return f"{' or '.join(MODULES[name])} is not installed; {INSTALL[name]}"
    if setting is None:
        return None
    if setting.device.type != "cuda":
        return f"it runs on a GPU only, and the weights are on {setting.device}"
    if setting.dtype not in (torch.bfloat16, torch.float16):
        return f"it takes bfloat16, and the weights are {str(setting.dtype).removeprefix('torch.')}"
    if setting.head_dim > _HEADS[name] or setting.head_dim % 8:
        return (
            f"it takes heads of up to {_HEADS[name]} numbers, in eights, and these have "
            f"{setting.head_dim}"
        )
    least, most = _CARDS[name]
    if setting.capability is not None and not least <= setting.capability <= most:
        have, lo, hi = (".".join(map(str, c)) for c in (setting.capability, least, most))
        return f"it runs on compute capability {lo} to {hi}, and this card has {have}"
    return None


def check_backend(backend: str) -> Backend:
    """Refuse a backend that does not exist, is known to be wrong, or is not installed here.

    Raises:
        ValueError: with the reason and what would be right.
    """
    for word, reason in _KNOWN_WRONG.items():
        if isinstance(backend, str) and word in backend.lower():
            raise ValueError(f"attention is {backend!r}; {reason}. Use 'auto' or 'sdpa'")
    if backend not in get_args(Backend):
        raise ValueError(f"attention is {backend!r}; it must be one of {get_args(Backend)}")
    if problem := obstacle(backend):
        raise ValueError(f"attention is {backend!r}, but {problem}, or use attention='sdpa'")
    return cast(Backend, backend)


def settle_backend(backend: Backend, setting: Setting) -> Backend:
    """The kernel that ``backend`` means in a setting; never "auto" or "flash".

    "auto" is the flash kernel made for the card where it is installed and fits, otherwise "sdpa",
    whose cuDNN kernel is as fast. It does not depend on the load, so replays choose the same.

    Raises:
        ValueError: it cannot run there, and why.
    """
    check_backend(backend)
    if backend == "auto":
        return choice(setting)[0]
    if reason := obstacle(backend, setting):
        raise ValueError(f"attention is {backend!r}, but {reason}; use attention='sdpa'")
    if backend == "flash":
        return next(cast(Backend, n) for n in FLASH if obstacle(n, setting) is None)
    return backend


def choice(setting: Setting) -> tuple[Backend, str]:
    """What "auto" takes in a setting, and why."""
    if setting.device.type != "cuda":
        return "sdpa", "PyTorch's own kernels; all others need a GPU"
    made_for = {9: "flash3", 10: "flash4"}
    major = setting.capability[0] if setting.capability else 0
    best = made_for.get(major)
    if best is None:
        return "sdpa", "PyTorch's own kernels; no other is faster on this card"
    if reason := obstacle(best, setting):
        return "sdpa", f"PyTorch's own kernels, cuDNN's first; {best} is out: {reason}"
    return cast(Backend, best), "made for this card"
