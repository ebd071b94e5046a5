"""The loop: a resumed run is the uninterrupted one; signals stop it cleanly."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from magi_world.training.loop import LoopConfig, Stopped, parameter_groups, train

CONFIG = LoopConfig(steps=8, batch=4, muon_lr=0.05, adam_lr=0.05, warmup=2, ema=0.5)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.Linear(3, 3)
        self.out = nn.Linear(3, 1)


def objective(model: Small, stop_at: int | None = None):
    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        x = torch.randn(4, 3, generator=generator)
        return (model.out(model.blocks(x)) - x.sum(1, keepdim=True)).square().mean(), {}

    return loss


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole, halves = Small(), Small()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    train("toy", whole, objective(whole), CONFIG, tmp_path / "a")
    with pytest.raises(Stopped, match="step 4 of 8"):
        train("toy", halves, objective(halves, stop_at=3), CONFIG, tmp_path / "b")
    fresh = Small()
    train("toy", fresh, objective(fresh), CONFIG, tmp_path / "b")
    for (name, a), b in zip(whole.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_it_learns_and_logs(tmp_path: Path) -> None:
    model = Small()
    config = replace(CONFIG, steps=60)
    seen: list[float] = []
    loss = objective(model)

    def watched(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        value, figures = loss(step, generator)
        seen.append(value.item())
        return value, figures

    train("toy", model, watched, config, tmp_path, probe=lambda m: {"probe": 1.0}, probe_every=30)
    assert sum(seen[-5:]) < 0.1 * sum(seen[:5])
    lines = (tmp_path / "toy.jsonl").read_text().splitlines()
    assert sum('"probe"' in line for line in lines) == 2


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    model = Small()
    train("toy", model, objective(model), CONFIG, tmp_path)
    with pytest.raises(ValueError, match=r"batch = 4, not 5"):
        train("toy", model, objective(model), replace(CONFIG, batch=5), tmp_path)


def test_rate_rises_and_falls() -> None:
    config = LoopConfig(steps=100, batch=1, warmup=10, decay=0.5)
    rates = [config.rate(s) for s in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[20] == rates[49] == 1.0
    assert rates[75] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.02)
    with pytest.raises(ValueError, match="steps is 0"):
        LoopConfig(steps=0, batch=1)


def test_muon_gets_the_matrices_of_the_blocks() -> None:
    model = Small()
    muon, adam = parameter_groups(model, "blocks")
    assert [tuple(p.shape) for p in muon] == [(3, 3)]
    assert len(adam) == 3
