"""The loop that every stage shares: steps, schedule, Muon and AdamW, EMA, checkpoints, clean stop.

A step's data and noise come from a generator seeded by (seed, step) and from nothing else, and a
checkpoint holds weights, their average and both optimisers' state: a resumed run does what the
uninterrupted one would have done.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from magi_world.training.muon import Muon
from magi_world.training.progress import Progress
from magi_world.training.stopping import Stopped, clean_stop

M = TypeVar("M", bound=nn.Module)
MOST_SKIPPED = 20  # steps whose gradient overflowed, before a run counts as lost


class Diverged(ValueError):
    """The loss is no number any more; the last good checkpoint is kept."""


@dataclass(frozen=True)
class LoopConfig:
    """How a stage is optimised.

    steps: 0 leaves the stage at its start. muon_lr: matrices of the blocks; adam_lr: everything
    else. Both rise over ``warmup`` steps and fall linearly to zero over the last ``decay`` share.
    ema: decay of the averaged weights.
    """

    steps: int
    batch: int
    muon_lr: float = 2e-3
    adam_lr: float = 1e-3
    weight_decay: float = 0.0
    warmup: int = 20
    decay: float = 0.4
    ema: float = 0.99
    clip: float = 1.0
    save_seconds: float = 120.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("batch", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"LoopConfig.{name} is {getattr(self, name)}; it must be >= {least}"
                )
        if not 0 <= self.ema < 1:
            raise ValueError(f"LoopConfig.ema is {self.ema}; it must be in [0, 1)")

    def rate(self, step: int) -> float:
        """Share of the learning rate at ``step``."""
        up = min(1.0, (step + 1) / max(1, self.warmup))
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return up * min(1.0, left)


def parameter_groups(model: nn.Module, matrices: str) -> tuple[list[Tensor], list[Tensor]]:
    """(2-D weights whose name contains ``matrices``, all other trainable parameters)."""
    muon: list[Tensor] = []
    adam: list[Tensor] = []
    for name, p in model.named_parameters():
        if p.requires_grad:
            (muon if p.ndim == 2 and matrices in name else adam).append(p)
    return muon, adam


def step_generator(seed: int, step: int) -> torch.Generator:
    """The CPU generator of one step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def save_atomic(state: object, path: Path) -> None:
    """torch.save to a file beside ``path``, then one rename."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


class Averaged:
    """Exponential moving average of a model's parameters, with a short start-up."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {k: v.detach().clone().float() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the model's weights."""
        keep = min(self.decay, (step + 1) / (step + 10))
        state = model.state_dict()
        names = list(self.values)
        torch._foreach_lerp_(
            [self.values[n] for n in names], [state[n].float() for n in names], 1 - keep
        )


def train(
    name: str,
    model: M,
    loss: Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]],
    config: LoopConfig,
    folder: Path,
    matrices: str = "blocks",
    probe: Callable[[M], dict[str, float]] | None = None,
    probe_every: int = 200,
) -> None:
    """Train ``model`` and leave its averaged weights in it.

    Args:
        name: of the stage; ``folder/name.ckpt`` is its checkpoint, ``folder/name.jsonl`` its log.
        loss: (step, generator) -> scalar loss of one batch and figures to show.
        matrices: part of the name of the parameters that Muon trains.
        probe: called every ``probe_every`` steps with the model; its figures go to the log.

    Raises:
        Stopped: a signal asked to stop; the checkpoint is complete.
        Diverged: the loss, or many gradients in a row, are no numbers.
        KeyboardInterrupt: asked to stop twice.
        ValueError: the checkpoint belongs to another configuration.
    """
    muon_params, adam_params = parameter_groups(model, matrices)
    muon = Muon(muon_params, config.muon_lr, config.weight_decay)
    adam = torch.optim.AdamW(
        adam_params, lr=config.adam_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    averaged = Averaged(model, config.ema)
    path, step = folder / f"{name}.ckpt", 0
    if path.exists():
        state = torch.load(path, map_location=next(model.parameters()).device, weights_only=True)
        fixed = ("batch", "seed")
        for key in fixed:
            if state["config"][key] != getattr(config, key):
                raise ValueError(
                    f"{path} was trained with {key} = {state['config'][key]}, not "
                    f"{getattr(config, key)}; resume with the same or use another run folder"
                )
        model.load_state_dict(state["model"])
        averaged.values = state["ema"]
        muon.load_state_dict(state["muon"])
        adam.load_state_dict(state["adam"])
        step = state["step"]

    def checkpoint() -> None:
        save_atomic(
            {
                "model": model.state_dict(),
                "ema": averaged.values,
                "muon": muon.state_dict(),
                "adam": adam.state_dict(),
                "step": step,
                "config": asdict(config),
            },
            path,
        )

    saved, skipped = time.monotonic(), 0
    progress = Progress(name, config.steps, step, folder)
    with clean_stop() as asked, open(folder / f"{name}.jsonl", "a") as log:
        while step < config.steps:
            share = config.rate(step)
            for group in muon.param_groups:
                group["lr"] = config.muon_lr * share
            for group in adam.param_groups:
                group["lr"] = config.adam_lr * share
            value, figures = loss(step, step_generator(config.seed, step))
            number = value.item()
            if not math.isfinite(number):
                raise _diverged(name, f"the loss is {number}", step, path)
            value.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            # A single overflow in low precision is skipped; weights without a gradient for long
            # are lost.
            skipped = 0 if torch.isfinite(norm) else skipped + 1
            if skipped == 0:
                muon.step()
                adam.step()
            elif skipped == MOST_SKIPPED:
                raise _diverged(name, f"{skipped} gradients in a row are no numbers", step, path)
            muon.zero_grad(set_to_none=True)
            adam.zero_grad(set_to_none=True)
            averaged.update(model, step)
            step += 1
            progress.advance(number)
            if step % 10 == 0:
                figures = {"loss": number, "grad": norm.item(), **figures}
                log.write(json.dumps({"step": step, "time": round(time.time()), **figures}) + "\n")
                log.flush()
            if probe is not None and step % probe_every == 0:
                with swapped(model, averaged.values):
                    held_out = probe(model)
                row = {"step": step, "time": round(time.time()), **held_out}
                log.write(json.dumps(row) + "\n")
                log.flush()
                progress.probed(held_out)
            if asked() or time.monotonic() - saved > config.save_seconds:
                checkpoint()
                saved = time.monotonic()
                progress.paused()
            if asked():
                progress.close()
                raise Stopped(f"{name} stopped at step {step} of {config.steps}; {path} is saved")
        progress.close()
        if progress.times:
            log.write(json.dumps({"step": step, "seconds": round(progress.seconds, 6)}) + "\n")
    checkpoint()
    model.load_state_dict(averaged.values)


def _diverged(name: str, what: str, step: int, path: Path) -> Diverged:
    kept = f"{path} holds the last good state" if path.exists() else "there is no checkpoint yet"
    return Diverged(
        f"{name}: {what} at step {step}; {kept}. Lower {name}'s muon_lr and adam_lr (halve them), "
        "then the same command goes on from there"
    )


@contextmanager
def swapped(model: nn.Module, values: dict[str, Tensor]) -> Iterator[None]:
    """Inside, ``model`` has the weights ``values``."""
    own = {k: v.detach().clone() for k, v in model.state_dict().items()}
    model.load_state_dict(values)
    try:
        yield
    finally:
        model.load_state_dict(own)
