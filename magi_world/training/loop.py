"""The loop that every stage shares: steps, schedule, Muon and AdamW, EMA, checkpoints, clean stop.

A step's data and noise come from a generator seeded by (seed, step) and from nothing else, and a
checkpoint holds weights, their average and both optimisers' state: a resumed run does what the
uninterrupted one would have done.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from magi_world.interrupts import Stopped, clean_stop
from magi_world.io.files import replacing
from magi_world.training.progress import Progress

QUINTIC = (3.4445, -4.7750, 2.0315)
MOST_SKIPPED = 20  # steps whose gradient overflowed, before a run counts as lost


@functools.cache
def bfloat16_pays(device: str) -> bool:
    """Whether products in bfloat16 are at least as fast as in float32 on a device type."""
    if device != "cpu":
        return True
    return _seconds(torch.bfloat16) <= _seconds(torch.float32)


def _seconds(dtype: torch.dtype) -> float:
    a, b = torch.ones(256, 256, dtype=dtype), torch.ones(256, 256, dtype=dtype)
    a @ b
    best = float("inf")
    for _ in range(3):
        begun = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - begun)
    return best


def mixed(wanted: bool | None, device: torch.device) -> bool:
    """Whether to compute in bfloat16: as wanted, or, where that is None, where it pays."""
    return bfloat16_pays(device.type) if wanted is None else wanted


def training_attention(device: torch.device) -> AbstractContextManager[None]:
    """Attention kernels for training: on a CPU the plain formula is several times faster than the
    fused kernel, forward and backward, for a few hundred tokens."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def orthogonalise(stack: Tensor, steps: int = 5) -> Tensor:
    """(K, r, c), r <= c -> the same with singular values near 1, by Newton-Schulz.

    The polynomials are evaluated on the Gram matrices (r, r) and multiplied onto the stack once at
    the end where that is less work (from c = 2 r on); not in low precision, where that leaves
    singular values of up to 13 and training falls apart.
    """
    a, b, c = QUINTIC
    x = stack / stack.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None]
    if x.shape[2] < 2 * x.shape[1] or x.dtype.itemsize < 4:
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
        dtype: of the orthogonalisation; None is bfloat16 on a GPU, the matrices' own elsewhere.
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


def steps_done(folder: Path, stage: str) -> int:
    """Steps of a stage's checkpoint; 0 where there is none."""
    path = folder / f"{stage}.ckpt"
    if not path.exists():
        return 0
    return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["step"])


M = TypeVar("M", bound=nn.Module)


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
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


class Averaged:
    """Exponential moving average of a model's parameters, with a short start-up."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {k: v.detach().clone().float() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
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
    muon_dtype: torch.dtype | None = None,
) -> None:
    """Train ``model`` and leave its averaged weights in it.

    Args:
        name: of the stage; ``folder/name.ckpt`` is its checkpoint, ``folder/name.jsonl`` its log.
        loss: (step, generator) -> scalar loss of one batch and figures to show.
        matrices: part of the name of the parameters that Muon trains.
        probe: called every ``probe_every`` steps with the model; its figures go to the log.
        muon_dtype: of `Muon`.

    Raises:
        Stopped: a signal asked to stop; the checkpoint is complete.
        Diverged: the loss, or many gradients in a row, are no numbers.
        KeyboardInterrupt: asked to stop twice.
        ValueError: the checkpoint belongs to another configuration.
    """
    muon_params, adam_params = parameter_groups(model, matrices)
    muon = Muon(muon_params, config.muon_lr, config.weight_decay, dtype=muon_dtype)
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
        state = {
            "model": model.state_dict(),
            "ema": averaged.values,
            "muon": muon.state_dict(),
            "adam": adam.state_dict(),
            "step": step,
            "config": asdict(config),
        }
        with replacing(path) as part:
            torch.save(state, part)

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
            if step % 10 == 0 or step == config.steps:
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
