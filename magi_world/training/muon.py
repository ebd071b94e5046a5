"""Muon (Jordan 2024; "Muon is scalable", arXiv 2502.16982): momentum, made orthogonal.

torch.optim.Muon does the same one matrix at a time and always in bfloat16, for which many CPUs have
no instructions (66 times slower than float32 on an AVX2 machine). Here matrices of one shape are
stacked, and the precision is the device's own.

Legend: K matrices of one shape, r rows, c columns, r <= c after transposing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(stack: Tensor, steps: int = 5) -> Tensor:
    """(K, r, c), r <= c -> the same with singular values near 1, by Newton-Schulz.

    The polynomials are evaluated on the Gram matrices (r, r) and multiplied onto the stack once at
    the end where that is less work (from c = 2 r on).
    """
    a, b, c = QUINTIC
    x = stack / stack.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None]
    if x.shape[2] < 2 * x.shape[1]:
        for _ in range(steps):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x
    gram = x @ x.mT
    eye = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    whole = eye.expand_as(gram)
    for step in range(steps):
        part = a * eye + torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        whole = part @ whole if step else part
        if step < steps - 1:
            gram = part @ gram @ part
    return whole @ x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum 0.95, orthogonalised, scaled to the update size of AdamW (0.2 sqrt(max)).

    Args:
        params: matrices only.
        dtype: of the orthogonalisation; None is bfloat16 on a GPU, float32 elsewhere.
    """

    def __init__(
        self,
        params: Sequence[Tensor],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        dtype: torch.dtype | None = None,
    ) -> None:
        if wrong := [tuple(p.shape) for p in params if p.ndim != 2]:
            raise ValueError(f"Muon takes matrices only, not parameters of shape {wrong}")
        self.dtype = dtype
        super().__init__(
            list(params), {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        if closure is not None:
            raise ValueError("Muon.step takes no closure")
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(tuple(p.shape), []).append(p)
            for (rows, columns), params in shapes.items():
                update = self._momentum(params, group["momentum"])
                tall = rows > columns
                dtype = self.dtype or (torch.bfloat16 if update.is_cuda else update.dtype)
                flat = orthogonalise((update.mT if tall else update).to(dtype)).to(update.dtype)
                size = -group["lr"] * 0.2 * max(rows, columns) ** 0.5
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(params, list((flat.mT if tall else flat).unbind()), alpha=size)

    def _momentum(self, params: list[Tensor], momentum: float) -> Tensor:
        grads = [p.grad for p in params if p.grad is not None]
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_lerp_(buffers, grads, 1 - momentum)
        return torch.stack(torch._foreach_lerp(grads, buffers, momentum))
