"""A dress rehearsal: every stage for a few steps, at full size, on a few chunks.

It finds what only running finds, and says how long each stage will take on this machine. The steps
are timed without torch.compile, whose own start would take longer than the rehearsal: where a
stage compiles, it will be somewhat faster than told.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from magi_world.training.classifier import train_classifier
from magi_world.training.codec import train_codec, train_decoder
from magi_world.training.dataset import ChunkDataset
from magi_world.training.distill import train_distill
from magi_world.training.dynamics import train_dynamics
from magi_world.training.estimate import Estimate
from magi_world.training.fit_heads import fit_heads
from magi_world.training.latents import LatentDataset
from magi_world.training.loop import LoopConfig
from magi_world.training.phrases import PhraseTable
from magi_world.training.preflight import (
    Played,
    latent_bytes,
    recording_bytes,
    small_recording,
)
from magi_world.training.settings import WorldTrainConfig


class _AnyWords:
    """Stands in for the text encoder: captions of the usual length."""

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def encode(self, prompt: str) -> Tensor:
        """Rows of no meaning."""
        return torch.zeros(min(8, 1 + len(prompt.split())), self.channels) + 0.1


def stage_loops(config: WorldTrainConfig) -> dict[str, LoopConfig]:
    """The loops of the trained stages, in order; none for heads that predict nothing."""
    loops = {
        "codec": config.codec.loop,
        "dynamics": config.dynamics.loop,
        "distill": config.distill.loop,
        "decoder": config.codec.decoder,
        "heads": config.heads.loop,
        "classifier": config.classifier.loop,
    }
    if not config.heads.predicted:
        del loops["heads"]
    return loops


def rehearse(
    config: WorldTrainConfig, played: Played, device: torch.device, steps: int = 2
) -> Estimate:
    """Run every stage for 1 + ``steps`` steps; the loop itself says what one of them takes.

    Raises:
        ValueError: a stage fails, named.
    """
    seconds: dict[str, float] = {"record": played.seconds / config.record.processes}
    with tempfile.TemporaryDirectory(prefix="magi-world-") as name, _quiet():
        folder = Path(name)
        data = ChunkDataset(
            [small_recording(config.record, played, folder / "data")], config.record.mirror
        )
        run = _Rehearsal(config, data, device, folder)
        for stage in stage_loops(config):
            try:
                seconds[stage] = run.stage(stage, 1 + steps)
            except (RuntimeError, ValueError, IndexError, KeyError, TypeError) as error:
                raise ValueError(f"{stage} cannot run: {error}") from error
    measured = Estimate(
        {},
        {**seconds, "evaluate": _dream_seconds(config, seconds["dynamics"])},
        disk=run.checkpoint_bytes,
        memory=_memory(device),
    )
    return planned(config, measured)


def planned(config: WorldTrainConfig, measured: Estimate) -> Estimate:
    """The estimate for the lengths of ``config``'s stages, from measured seconds of their steps."""
    counts = {name: loop.steps for name, loop in stage_loops(config).items()}
    chunks = config.record.shards * config.record.chunks_per_shard
    counts = {"record": chunks, **counts, "evaluate": dreamed_chunks(config)}
    disk = measured.disk + (0 if measured.steps else recording_bytes(config))
    memory = measured.memory + (0 if measured.steps else latent_bytes(config))
    return Estimate(counts, measured.seconds, disk, memory)


class _Rehearsal:
    """The parts that the stages hand on to each other."""

    def __init__(
        self, config: WorldTrainConfig, data: ChunkDataset, device: torch.device, folder: Path
    ) -> None:
        self.config, self.data, self.device, self.folder = config, data, device, folder
        self.names = list(config.commands)
        self.phrases = PhraseTable(_AnyWords(config.text.channels), config.commands)  # type: ignore[arg-type]
        self.vae: Any = None
        self.latents: Any = None
        self.dit: Any = None
        self.sizes: dict[str, int] = {}

    def stage(self, name: str, steps: int) -> float:
        """Run a stage for some steps, in a folder of its own; the seconds of one step."""
        folder = self.folder / name
        folder.mkdir()
        run: Callable[[LoopConfig, Path], None] = getattr(self, f"_{name}")
        run(replace(stage_loops(self.config)[name], steps=steps, warmup=1), folder)
        self.sizes[name] = sum(f.stat().st_size for f in folder.glob("*.ckpt"))
        log = folder / f"{name}.jsonl"
        rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return max([r["seconds"] for r in rows if "seconds" in r], default=0.0)

    @property
    def checkpoint_bytes(self) -> int:
        """Of the checkpoints of all stages."""
        return sum(self.sizes.values())

    def _codec(self, loop: LoopConfig, folder: Path) -> None:
        config = replace(self.config.codec, loop=loop, compile=False)
        self.vae = train_codec(config, self.data, self.data, folder, self.device)
        self.latents = LatentDataset(self.vae, self.data, self.names)
        self.latents.clips(1, self.config.dynamics.chunks, torch.Generator())

    def _dynamics(self, loop: LoopConfig, folder: Path) -> None:
        config = replace(self.config.dynamics, loop=loop, compile=False)
        parts = (self.latents, self.latents, self.phrases)
        self.dit = train_dynamics(config, *parts, folder, self.device)

    def _distill(self, loop: LoopConfig, folder: Path) -> None:
        config = replace(self.config.distill, loop=loop)
        dynamics = replace(self.config.dynamics, compile=False)
        parts = (self.dit, self.latents, self.phrases)
        train_distill(config, dynamics, *parts, folder, self.device)

    def _decoder(self, loop: LoopConfig, folder: Path) -> None:
        config = replace(self.config.codec, decoder=loop, compile=False)
        train_decoder(config, self.vae, self.data, self.data, folder, self.device)

    def _heads(self, loop: LoopConfig, folder: Path) -> None:
        events = list(self.config.record.events)
        fit_heads(replace(self.config.heads, loop=loop), self.latents, events, folder, self.device)

    def _classifier(self, loop: LoopConfig, folder: Path) -> None:
        config = replace(self.config.classifier, loop=loop)
        # A judge needs every command; here only those that were played are there.
        rows = (self.data.command[self.data.end == 0]).unique().tolist()
        if len(rows) == len(self.names):
            moves = self.config.record.moves
            train_classifier(config, self.data, self.names, folder, self.device, moves)


def dreamed_chunks(config: WorldTrainConfig) -> int:
    """Chunks that the evaluation dreams, at most."""
    e = config.evaluate
    long = round(e.seconds * config.fps / config.record.frames_per_chunk)
    lengths = sum(n * (e.clips if n <= 4 else e.worlds) for n in e.lengths)
    choices = 4 * e.choices * len(config.commands)
    return 2 * e.clips * len(config.commands) + lengths + choices + e.worlds * long


def _dream_seconds(config: WorldTrainConfig, training_step: float) -> float:
    """A dreamed chunk: one pass a denoising step and one for its keys, each a third of a training
    step's share."""
    d = config.dynamics
    passes = d.loop.batch * d.chunks * (1 + d.copies)
    return (config.sampler.num_steps + 2) * training_step / passes / 3


def _memory(device: torch.device) -> int:
    """Bytes that the rehearsal took at most."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most if sys.platform == "darwin" else most * 1024)


@contextlib.contextmanager
def _quiet() -> Any:
    """The stages' own progress is of no interest here."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield
