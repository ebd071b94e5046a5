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
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from magi_world.training.codec import train_codec
from magi_world.training.data import ChunkDataset, LatentDataset
from magi_world.training.decoder import train_decoder
from magi_world.training.distill import train_distill
from magi_world.training.dynamics import foreseen, train_dynamics
from magi_world.training.heads import fit_heads
from magi_world.training.judge import train_classifier
from magi_world.training.loop import LoopConfig
from magi_world.training.phrases import PhraseTable
from magi_world.training.preflight import Played, latent_bytes, recording_bytes, small_recording
from magi_world.training.progress import Estimate
from magi_world.training.settings import WorldTrainConfig

# Which part of the time each stage gets; what is left is for what cannot be shortened.
SHARES = {
    "record": 0.14,
    "codec": 0.2,
    "dynamics": 0.3,
    "distill": 0.07,
    "decoder": 0.05,
    "heads": 0.03,
    "classifier": 0.05,
    "evaluate": 0.1,
}
SHARDS = 4  # of a quick recording, one of them held out
FEWEST = 24  # chunks of a shard
LEAST = 2  # steps of a stage


class _AnyWords:
    """Stands in for the text encoder: captions of the usual length."""

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def encode(self, prompt: str) -> Tensor:
        return torch.zeros(min(8, 1 + len(prompt.split())), self.channels) + 0.1


Loops = Callable[[str, LoopConfig], LoopConfig]


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


def with_loops(config: WorldTrainConfig, change: Loops, compiled: bool = False) -> WorldTrainConfig:
    """``config`` with ``change(stage, loop)`` as the loop of every stage."""

    def one(stage: str, section: Any) -> Any:
        return replace(section, loop=change(stage, section.loop))

    codec, dynamics = one("codec", config.codec), one("dynamics", config.dynamics)
    decoder = change("decoder", codec.decoder)
    return replace(
        config,
        codec=replace(codec, decoder=decoder, compile=False),
        dynamics=replace(dynamics, compile=dynamics.compile and compiled),
        distill=one("distill", config.distill),
        heads=one("heads", config.heads),
        classifier=one("classifier", config.classifier),
    )


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
        short = with_loops(config, lambda _, loop: replace(loop, steps=1 + steps, warmup=1))
        stages = _stages(short, data, device, folder)
        for stage in stage_loops(config):
            try:
                next(stages, None)
            except (RuntimeError, ValueError, IndexError, KeyError, TypeError) as error:
                raise ValueError(f"{stage} cannot run: {error}") from error
            log = folder / f"{stage}.jsonl"
            rows = map(json.loads, log.read_text().splitlines() if log.exists() else ())
            seconds[stage] = max((r["seconds"] for r in rows if "seconds" in r), default=0.0)
        disk = sum(f.stat().st_size for f in folder.glob("*.ckpt"))
    seconds["evaluate"] = _dream_seconds(config, seconds["dynamics"])
    return planned(config, Estimate({}, seconds, disk=disk, memory=_memory(device)))


def _stages(
    config: WorldTrainConfig, data: ChunkDataset, device: torch.device, folder: Path
) -> Iterator[None]:
    """The trained stages, one at a time, on the same few chunks."""
    names, events = list(config.commands), list(config.record.events)
    phrases = PhraseTable(_AnyWords(config.text.channels), config.commands)  # type: ignore[arg-type]
    vae = train_codec(config.codec, data, data, folder, device)
    latents = LatentDataset(vae, data, names)
    latents.clips(*latents.draw(1, config.dynamics.chunks, torch.Generator()))
    yield
    dit = train_dynamics(config.dynamics, latents, latents, phrases, folder, device)
    yield
    train_distill(config.distill, config.dynamics, dit, latents, phrases, folder, device)
    yield
    steps = config.sampler.num_steps
    foresee = partial(foreseen, dit, config.dynamics, latents, phrases, steps)
    train_decoder(config.codec, vae, data, data, folder, device, foresee)
    yield
    if config.heads.predicted:
        fit_heads(config.heads, latents, events, folder, device)
        yield
    # A judge needs every command; here only those that were played are there.
    if len(data.command[data.end == 0].unique()) == len(names):
        train_classifier(config.classifier, data, names, folder, device, config.record.moves)
        yield


def planned(config: WorldTrainConfig, measured: Estimate) -> Estimate:
    """The estimate for the lengths of ``config``'s stages, from measured seconds of their steps."""
    counts = {name: loop.steps for name, loop in stage_loops(config).items()}
    chunks = config.record.shards * config.record.chunks_per_shard
    counts = {"record": chunks, **counts, "evaluate": dreamed_chunks(config)}
    disk = measured.disk + (0 if measured.steps else recording_bytes(config))
    memory = measured.memory + (0 if measured.steps else latent_bytes(config))
    return Estimate(counts, measured.seconds, disk, memory)


def dreamed_chunks(config: WorldTrainConfig) -> int:
    """Chunks that the evaluation dreams, at most."""
    e = config.evaluate
    long = round(e.seconds * config.fps / config.record.frames_per_chunk)
    lengths = sum(n * (e.clips if n <= 4 else e.worlds) for n in e.lengths)
    choices = 4 * e.choices * e.held * len(config.commands)
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


def quick_config(
    config: WorldTrainConfig, estimate: Estimate, minutes: float = 10.0
) -> WorldTrainConfig:
    """The same world with shorter stages, so that all of them take about ``minutes``.

    Sizes stay as they are, so that the full training goes on from what the try has learnt.
    """

    def afford(stage: str) -> int:
        seconds = max(1e-6, estimate.seconds.get(stage, 0.0))
        return int(SHARES[stage] * 60 * minutes / seconds)

    def short(stage: str, loop: LoopConfig) -> LoopConfig:
        steps = min(loop.steps, max(LEAST, afford(stage)))
        warmup = min(loop.warmup, max(1, steps // 10))
        # The average of the weights must be able to follow within so few steps.
        return replace(loop, steps=steps, warmup=warmup, ema=min(loop.ema, 1 - 3 / (steps + 3)))

    record = config.record
    least = max(FEWEST, config.dynamics.chunks + 2)
    per_shard = min(record.chunks_per_shard, max(least, afford("record") // SHARDS))
    shards = min(record.shards, SHARDS)
    long = config.dynamics.loop.steps
    e = config.evaluate
    dreams = max(40, afford("evaluate"))
    clips = max(1, min(e.clips, dreams // (4 * (2 * len(config.commands) + 5))))
    # Compiling takes longer than a try of a few hundred steps.
    return replace(
        with_loops(config, short, compiled=afford("dynamics") > long / 2),
        record=replace(
            record, chunks=shards * per_shard, chunks_per_shard=per_shard, held_out_shards=1
        ),
        evaluate=replace(
            e,
            clips=clips,
            worlds=max(1, min(e.worlds, clips)),
            seconds=min(e.seconds, 4.0),
            lengths=tuple(n for n in e.lengths if n <= 16),
            choices=min(e.choices, 2),
            figures="",
        ),
        starts=max(1, min(config.starts, 8)),
    )
