"""Muon: what torch's own does one matrix at a time, stacked and in the device's precision."""

from __future__ import annotations

import pytest
import torch

from magi_world.training.loop import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 8, 12), (2, 8, 32)])
def test_singular_values_come_near_one(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    made = orthogonalise(torch.randn(shape, generator=generator, dtype=torch.float64))
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_the_gram_path_is_the_same_polynomial() -> None:
    wide = torch.randn(1, 8, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = wide / wide.norm()
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    torch.testing.assert_close(orthogonalise(wide), x)


def test_steps_are_those_of_torch() -> None:
    shapes = [(8, 8), (8, 8), (16, 8), (8, 40)]
    generator = torch.Generator().manual_seed(2)
    start = [torch.randn(s, generator=generator) for s in shapes]
    ours = [torch.nn.Parameter(p.clone()) for p in start]
    theirs = [torch.nn.Parameter(p.clone()) for p in start]
    mine = Muon(ours, lr=0.1, weight_decay=0.1, dtype=torch.bfloat16)
    reference = torch.optim.Muon(theirs, lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        mine.step()
        reference.step()
    for p, q, s in zip(ours, theirs, start, strict=True):
        moved = (q - s).norm()
        assert (p - q).norm() < 0.05 * moved  # bfloat16 rounds both, each in its own order


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4,\)"):
        Muon([torch.nn.Parameter(torch.zeros(4))], lr=0.1)


@pytest.mark.parametrize("shape", [(1, 32, 32), (2, 64, 128), (2, 128, 512)])
def test_low_precision_keeps_singular_values_near_one(shape: tuple[int, ...]) -> None:
    """Gradients are nearly of low rank: there bfloat16 Gram matrices went up to 13."""
    torch.manual_seed(0)
    n, r, c = shape
    left = torch.linalg.qr(torch.randn(n, r, r))[0] * torch.logspace(0, -4, r)
    stack = left @ torch.linalg.qr(torch.randn(n, c, r))[0].mT
    for dtype in (torch.float32, torch.bfloat16):
        made = torch.linalg.svdvals(orthogonalise(stack.to(dtype)).float())
        assert made.max() < 1.4, dtype
