"""Which attention kernels there are, which of them can run a model here, and which is taken.

A backend is chosen once, when a stream is built; what cannot run, or is known to answer wrongly,
is refused there and not at the first step.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch

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
