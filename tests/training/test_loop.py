"""The loop: a resumed run is the uninterrupted one; signals stop it cleanly."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from magi_world.training.loop import Diverged, LoopConfig, Stopped, parameter_groups, train

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
    with pytest.raises(ValueError, match="steps is -1"):
        LoopConfig(steps=-1, batch=1)


def test_muon_gets_the_matrices_of_the_blocks() -> None:
    model = Small()
    muon, adam = parameter_groups(model, "blocks")
    assert [tuple(p.shape) for p in muon] == [(3, 3)]
    assert len(adam) == 3


def poisoned(model: Small, at: int, value: float):
    """A loss that is ``value`` from step ``at`` on."""
    honest = objective(model)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        out, figures = honest(step, generator)
        return (out * value if step >= at else out), figures

    return loss


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, value: float
) -> None:
    model = Small()
    with pytest.raises(Diverged, match=r"toy: the loss is (nan|inf) at step 3; there is no check"):
        train("toy", model, poisoned(model, 3, value), CONFIG, tmp_path)
    model = Small()
    often = replace(CONFIG, save_seconds=0.0)
    with pytest.raises(Diverged, match=r"at step 5; .*toy.ckpt holds the last good state.*muon_lr"):
        train("toy", model, poisoned(model, 5, value), often, tmp_path)
    state = torch.load(tmp_path / "toy.ckpt", weights_only=True)
    assert state["step"] == 5
    assert all(torch.isfinite(v).all() for v in state["model"].values())
    # The same folder goes on once the cause is gone.
    model = Small()
    train("toy", model, objective(model), CONFIG, tmp_path)
    assert torch.load(tmp_path / "toy.ckpt", weights_only=True)["step"] == CONFIG.steps


def test_gradients_that_overflow_for_long_stop_it(tmp_path: Path) -> None:
    model = Small()

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        # Finite, with the slope of a square root at zero.
        return (model.out.weight * 0).sum().sqrt() + 0 * model.blocks.weight.sum(), {}

    with pytest.raises(Diverged, match="20 gradients in a row"):
        train("toy", model, loss, replace(CONFIG, steps=40), tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(tmp_path: Path, number: int) -> None:
    model = Small()
    honest = objective(model)

    def stuck(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        if step == 2:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            raise AssertionError("the second signal was swallowed")
        return honest(step, generator)

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        train("toy", model, stuck, replace(CONFIG, save_seconds=0.0), tmp_path)
    assert signal.getsignal(number) is before
    assert torch.load(tmp_path / "toy.ckpt", weights_only=True)["step"] == 2
