"""The engine on a CPU beside the same mathematics written plainly, over one long stream.

    python benchmarks/engine_cpu.py [--chunks 30] [--dtype float32]

5 million parameters, latents 16x16x16, two of them a chunk, 8 distilled steps, windows of 1 and 4.
One JSON line: for each window the plain version's time over the engine's, in all and over the last
five chunks, the last third of the engine's chunks over the second (1: it does not slow down), and
the largest difference between the two.
"""

from __future__ import annotations

from statistics import median

import torch
from common import options, random_dit, report, timed
from plain import PlainStream

from magi_world.config import DiTConfig, SamplerConfig
from magi_world.model.dit import DiT
from magi_world.model.layers import settle
from magi_world.sampling.stream import ChunkStream, StreamConfig

SIZE = (16, 16)
DIT = DiTConfig(
    layers=6, hidden=256, ffn=1024, heads=8, kv_groups=4, head_dim=32, caption_channels=256
)


def main() -> None:
    parser = options(__doc__, seconds=0)
    parser.add_argument("--chunks", type=int, default=30)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    given = parser.parse_args()
    dit = random_dit(DIT, getattr(torch, given.dtype))
    settle(dit)
    chunks = 3 if given.tiny else given.chunks
    figures = {f"window_{window}": compared(dit, window, chunks) for window in (1, 4)}
    parameters = sum(p.numel() for p in dit.parameters())
    report(
        "engine_cpu",
        {"parameters": parameters, "dtype": given.dtype, "chunks": chunks, **figures},
    )


def compared(dit: DiT, window: int, chunks: int) -> dict[str, float]:
    """Both streams, chunk by chunk in turn, on the same caption."""
    sampler = SamplerConfig(
        num_steps=8, window_size=window, chunk_width=2, passes=1, distilled=True
    )
    stream, plain = ChunkStream(dit, StreamConfig(sampler, SIZE)), PlainStream(dit, sampler, SIZE)
    stream.reset([0], [0], None)
    caption = torch.randn(24, DIT.caption_channels, generator=torch.Generator().manual_seed(0))
    keys = stream.text_kv(caption)

    def engine() -> torch.Tensor:
        while (landed := stream.stage([0], [keys])) is None:
            pass
        return landed[0]

    ours: list[float] = []
    theirs: list[float] = []
    worst = 0.0
    for _ in range(chunks):
        seconds, made = timed(engine)
        ours.append(seconds)
        seconds, expected = timed(plain.next_chunk, caption)
        theirs.append(seconds)
        difference = (made - expected).abs().max() / expected.abs().max()
        if not torch.isfinite(difference):
            raise ValueError("the two streams did not give finite numbers")
        worst = max(worst, float(difference))
    third = max(1, chunks // 3)
    return {
        "plain_over_engine": sum(theirs) / sum(ours),
        "plain_over_engine_last_5": sum(theirs[-5:]) / sum(ours[-5:]),
        "engine_seconds": median(ours),
        "engine_last_third_over_second": median(ours[-third:]) / median(ours[third : 2 * third]),
        "largest_relative_difference": worst,
    }


if __name__ == "__main__":
    main()
