"""One denoising step over millions of tokens of history in a mapped file, in little memory.

    python benchmarks/long_history.py [--tokens 4000000] [--folder DIR]

The history is filled with random keys, as a stream of so many chunks would have left them; then a
transformer of a tiny configuration takes one step behind it. Prints one JSON line: seconds of the
step, bytes in the file, and the resident memory at its highest and beyond what a step without
history needs. `--check` compares with plain attention over the same keys, where both fit.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from common import options, report, resident, timed

from magi_world.config import DiTConfig, SamplerConfig
from magi_world.model.dit import DiT
from magi_world.sampling.kv_cache import KeyValueCache, MakeCache
from magi_world.sampling.long_history import HistoryPlan, LongCache, make_place
from magi_world.sampling.stream import ChunkStream, StreamConfig

DIT = DiTConfig(
    layers=2,
    hidden=64,
    ffn=128,
    heads=4,
    kv_groups=2,
    head_dim=32,
    latent_channels=4,
    caption_channels=16,
    caption_length=50,
    patch=1,
)
WIDTH, SIDE = 2, 8
TOKENS = WIDTH * SIDE * SIDE


def main() -> None:
    """Fill, step, print."""
    parser = options(__doc__, seconds=0)
    parser.add_argument("--tokens", type=int, default=4_000_000)
    parser.add_argument("--folder", type=Path, help="default: a temporary one")
    parser.add_argument("--check", action="store_true", help="against one contiguous cache")
    given = parser.parse_args()
    if given.tiny:
        given.tokens = 4_000
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        figures = measure(-(-given.tokens // TOKENS), Path(folder), given.check)
        report("long_history", figures)


def measure(chunks: int, folder: Path, check: bool) -> dict[str, float]:
    """The step's cost, and its error where plain attention was run as well."""
    plan = HistoryPlan(4, make_place(folder))
    long = _stream(chunks, plan.make)
    cache = long.cache
    assert isinstance(cache, LongCache)
    filled, _ = timed(_fill, cache, chunks)
    _step(long)  # what a process needs once is in memory then
    before = resident()
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # the peak begins anew
    seconds, latents = timed(_step, long)
    found: dict[str, float] = {
        "tokens": chunks * TOKENS,
        "file_gib": chunks * cache.segment_config.chunk_bytes / 2**30,
        "fill_seconds": filled,
        "step_seconds": seconds,
        "resident_gib": before / 2**30,
        "peak_resident_gib": resident("VmHWM") / 2**30,
    }
    if check:
        plain = _stream(chunks, KeyValueCache)
        plain.cache = plain.cache.taken(cache)
        difference = (_step(plain) - latents).abs().max()
        found["error"] = float(difference / latents.abs().max())
    return found


def _stream(chunks: int, make_cache: MakeCache) -> ChunkStream:
    torch.manual_seed(0)
    dit = DiT(DIT).requires_grad_(False)
    sampler = SamplerConfig(
        num_steps=1, window_size=1, chunk_width=WIDTH, passes=1, kv_range=(chunks + 1,), sink=4
    )
    return ChunkStream(dit, StreamConfig(sampler, (SIDE, SIDE)), make_cache=make_cache)


@torch.inference_mode()
def _step(stream: ChunkStream) -> torch.Tensor:
    """Velocity's step of one chunk of noise; the history stays as it is."""
    lane = stream.rows[0]
    stage = stream.compute([0], [stream.null])
    stream.rows[0] = lane
    assert stage.clean is not None
    return stage.clean


@torch.inference_mode()
def _fill(cache: LongCache, chunks: int) -> None:
    """Random keys and values in every place of the history."""
    generator = torch.Generator().manual_seed(0)
    near, past = cache.near, cache.pasts[0]
    shape = (DIT.layers, TOKENS, DIT.kv_groups, DIT.head_dim)
    for _ in range(chunks - near.config.history):
        k, v = torch.randn(2, *shape, generator=generator)
        past.append(k, v)
    near.k.normal_(generator=generator)
    near.v.normal_(generator=generator)
    near.filled = [near.config.history]


if __name__ == "__main__":
    main()
