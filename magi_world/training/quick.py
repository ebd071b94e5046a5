"""A try of all stages in a few minutes: the same models, trained far too shortly."""

from __future__ import annotations

from dataclasses import replace

from magi_world.training.estimate import Estimate
from magi_world.training.loop import LoopConfig
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


def quick_config(
    config: WorldTrainConfig, estimate: Estimate, minutes: float = 10.0
) -> WorldTrainConfig:
    """The same world with shorter stages, so that all of them take about ``minutes``.

    Sizes stay as they are, so that the full training goes on from what the try has learnt.
    """

    def afford(stage: str) -> int:
        seconds = max(1e-6, estimate.seconds.get(stage, 0.0))
        return int(SHARES[stage] * 60 * minutes / seconds)

    def short(loop: LoopConfig, stage: str) -> LoopConfig:
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
    return replace(
        config,
        record=replace(
            record,
            chunks=shards * per_shard,
            chunks_per_shard=per_shard,
            held_out_shards=1,
        ),
        codec=replace(
            config.codec,
            loop=short(config.codec.loop, "codec"),
            decoder=short(config.codec.decoder, "decoder"),
            compile=False,
        ),
        dynamics=replace(
            config.dynamics,
            loop=short(config.dynamics.loop, "dynamics"),
            # Compiling takes longer than a try of a few hundred steps.
            compile=config.dynamics.compile and afford("dynamics") > long / 2,
        ),
        distill=replace(config.distill, loop=short(config.distill.loop, "distill")),
        heads=replace(config.heads, loop=short(config.heads.loop, "heads")),
        classifier=replace(config.classifier, loop=short(config.classifier.loop, "classifier")),
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
