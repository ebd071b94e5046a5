"""How fast a step of the transformer's training is, and where its time goes.

    python benchmarks/training_cpu.py [configs/courtyard.yaml] [--seconds 150] [--threads 1]

Two trainers in turn, on the same random latents: the one of today (float32 where bfloat16 does not
pay, the optimiser's matrices stacked) and, as "before", bfloat16 autocast with torch's own Muon,
one matrix after the other in bfloat16. One JSON line: targets a second of each, their ratio, and
the share of forward, backward and optimiser. Not compiled unless --compile is given (minutes more).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import torch
from common import options, report, rounds
from torch import Tensor

from magi_world.model.dit import DiT
from magi_world.training.dynamics import Batch, DynamicsConfig, goal, mix, start
from magi_world.training.forward import Captions, velocity
from magi_world.training.loop import Muon, mixed, parameter_groups
from magi_world.training.settings import read_settings

PARTS = ("forward", "backward", "optimiser")


def main() -> None:
    parser = options(__doc__, seconds=150)
    parser.add_argument("config", type=Path, nargs="?", default=Path("configs/courtyard.yaml"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = read_settings(arguments.config)
    config = settings.dynamics
    size = [s // settings.codec.vae.patch_size for s in settings.record.frame_size]
    if arguments.tiny:
        small = replace(config.dit, layers=2, hidden=64, ffn=128, heads=2, kv_groups=2)
        config = replace(config, dit=small, loop=replace(config.loop, batch=2))
    batch = random_batch(config, settings.sampler.chunk_width, size)
    trainers = {
        "now": Trainer(config, mixed(None, torch.device("cpu")), False, arguments.compile),
        "before": Trainer(config, True, True, arguments.compile),
    }
    for trainer in trainers.values():
        trainer.step(batch)
    spent: dict[str, list[list[float]]] = {name: [] for name in trainers}
    # In turn, so that a busy moment hits both.
    for _ in rounds(0 if arguments.tiny else arguments.seconds):
        for name, trainer in trainers.items():
            spent[name].append(trainer.step(batch))
    targets = batch.t.numel()
    figures: dict[str, object] = {
        "world": settings.name,
        "threads": arguments.threads,
        "compiled": arguments.compile,
        "targets_per_step": targets,
        "clean_chunks_per_step": batch.clean.shape[0] * batch.clean.shape[1],
        "now_in_bfloat16": trainers["now"].amp,
    }
    medians = {}
    for name, rows in spent.items():
        parts = torch.tensor(rows).median(0).values
        medians[name] = float(parts.sum())
        figures[name] = {
            "targets_per_second": targets / medians[name],
            "share": {p: float(s) / medians[name] for p, s in zip(PARTS, parts, strict=True)},
        }
    figures["times_as_fast"] = medians["before"] / medians["now"]
    report("training_cpu", figures)


def random_batch(config: DynamicsConfig, width: int, size: list[int]) -> Batch:
    """Latents and captions of the right shapes."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    b, n, m = config.loop.batch, config.chunks, config.copies
    after = torch.arange(-1, n - 1).repeat(m)
    k, latent = len(after), (config.dit.latent_channels, width, *size)
    rows = draw(b, k, 8, config.dit.caption_channels)
    mask = torch.ones(b, k, 8, dtype=torch.bool)
    dropped = torch.rand(b, k, generator=generator) < config.drop
    return Batch(
        draw(b, n, *latent),
        draw(b, k, *latent),
        draw(b, k, *latent),
        torch.rand(b, k, generator=generator) * 0.7,
        after,
        Captions(rows, mask, dropped),
        torch.full((b, k), 2.0),
        torch.zeros(b, k, dtype=torch.int64),
        torch.zeros(b, n, dtype=torch.int64),
        torch.zeros(b, dtype=torch.int64),
    )


class Trainer:
    """A model with its optimisers, timed part by part."""

    def __init__(self, config: DynamicsConfig, amp: bool, old: bool, compiled: bool) -> None:
        self.config, self.amp = replace(config), amp
        self.model = DiT(config.dit)
        start(self.model, 0)
        muon, adam = parameter_groups(self.model, "videodit_blocks")
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(muon, lr=1e-3, adjust_lr_fn="match_rms_adamw")
            if old
            else Muon(muon, lr=1e-3, dtype=torch.bfloat16 if amp else None),
            torch.optim.AdamW(adam, lr=1e-3, fused=True),
        ]
        self.objective = torch.compile(self.loss) if compiled else self.loss

    def loss(self, b: Batch) -> Tensor:
        x = mix(b.target, b.noise, b.t)
        v = velocity(
            self.model, b.clean, x, b.t, b.after, b.captions, b.interval, self.config.history
        )
        return (v - goal(self.config.dit, b, x)).square().mean()

    def step(self, batch: Batch) -> list[float]:
        """Seconds of forward, backward and optimiser."""
        times = [perf_counter()]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.amp):
            value = self.objective(batch)
        times.append(perf_counter())
        value.backward()
        times.append(perf_counter())
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        times.append(perf_counter())
        return [b - a for a, b in pairwise(times)]


if __name__ == "__main__":
    main()
