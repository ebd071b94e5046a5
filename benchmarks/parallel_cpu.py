"""One world over two processes of one thread each, against one process of one thread.

    python benchmarks/parallel_cpu.py [--ranks 2] [--steps 6]

A transformer of middle size with random weights takes the steps of a few chunks; every process is
started as torchrun starts it, on gloo. Prints one JSON line: seconds a chunk of one process and of
several, how many times faster that is, what `scale_model` says of it from the seconds of one
process and of one exchange, and whether the latents are equal. On a machine that does something
else at the same time the figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import torch
from common import report
from scale_model import predicted_ratio

from magi_world.config import DiTConfig, SamplerConfig
from magi_world.model.dit import DiT
from magi_world.model.vae import VAE
from magi_world.parallel.channel import Channel
from magi_world.parallel.dit import RankDiT
from magi_world.parallel.follow import follow
from magi_world.parallel.lead import LeadDiT
from magi_world.parallel.ranks import Ranks, torchrun_place
from magi_world.parallel.split import Split
from magi_world.sampling.cache import KeyValueCache, MakeCache
from magi_world.sampling.stream import ChunkStream, StreamConfig

DIT = DiTConfig(
    layers=8,
    hidden=768,
    ffn=3072,
    heads=12,
    kv_groups=4,
    head_dim=64,
    latent_channels=16,
    caption_channels=64,
    caption_length=50,
)
SAMPLER = SamplerConfig(
    num_steps=4, window_size=1, chunk_width=4, passes=1, distilled=True, kv_range=(4, 3)
)
SIDE = 32  # of a latent frame: 4 x 16 x 16 = 1024 tokens a chunk
EXCHANGES = 20


def main() -> None:
    """Start both, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--chunks", type=int, default=6)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.chunks)
        return
    alone, several = start(1, given.chunks), start(given.ranks, given.chunks)
    one, many = min(alone["seconds"]), min(several["seconds"])
    exchanges = several["exchanges"]
    report(
        "parallel_cpu",
        {
            "ranks": given.ranks,
            "seconds_one": one,
            "seconds_several": many,
            "faster": one / many,
            "predicted": predicted_ratio(one, exchanges, several["exchange"], given.ranks),
            "exchange_ms": 1e3 * several["exchange"],
            "equal": alone["sum"] == several["sum"],
        },
    )


def start(ranks: int, chunks: int) -> dict:
    """Run the workers; what rank 0 printed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--worker", "--chunks", str(chunks)],
            env={
                **os.environ,
                **{name: str(value) for name, value in place.items()},
                "MASTER_ADDR": "127.0.0.1",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent,
        )
        for rank in range(ranks)
    ]
    told = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"a process failed: {[p.returncode for p in processes]}")
    return json.loads(told[0])


def work(chunks: int) -> None:
    """One process of a run."""
    torch.set_num_threads(1)
    place = torchrun_place()
    assert place is not None
    torch.manual_seed(0)
    dit = DiT(DIT).requires_grad_(False)
    if place.size == 1:
        tell(dit, KeyValueCache, chunks)
        return
    ranks = Ranks(place, Split(place.size), torch.device("cpu"))
    if not place.leads:
        part = RankDiT(DIT, ranks).requires_grad_(False)
        part.load_state_dict(dit.state_dict())
        measure_exchange(part)
        raise SystemExit(follow(ranks, part, VAE.__new__(VAE), KeyValueCache))
    channel = Channel(ranks)
    lead = LeadDiT(DIT, channel).requires_grad_(False)
    lead.load_state_dict(dit.state_dict())
    seconds = measure_exchange(lead)
    tell(lead, lead.keep(KeyValueCache), chunks, seconds)
    channel.close()


def tell(dit: DiT, make_cache: MakeCache, chunks: int, exchange: float = 0.0) -> None:
    """Dream some chunks, and print what each took."""
    config = StreamConfig(SAMPLER, (SIDE, SIDE))
    stream = ChunkStream(dit, config, make_cache=make_cache)
    stream.reset([0], [0], None)
    seconds, total = [], 0.0
    for _ in range(chunks):
        begin = time.perf_counter()
        latents = stream.stage([0], [stream.null])
        seconds.append(time.perf_counter() - begin)
        assert latents is not None
        total += float(latents.double().sum())
    # Denoising steps and the clean pass, whose last layer only writes.
    count = 3 * DIT.layers * (SAMPLER.num_steps + 1)
    # The history is full from the fourth chunk on.
    told = {"seconds": seconds[3:], "sum": total, "exchange": exchange, "exchanges": count}
    print(json.dumps(told))


def measure_exchange(dit: RankDiT) -> float:
    """Seconds of an exchange of a mean size: queries to their heads."""
    tokens = SAMPLER.chunk_width * (SIDE // 2) ** 2
    mine = len(dit.exchange.tokens(tokens))
    q = torch.randn(1, 1, 1, mine, DIT.heads, DIT.head_dim)
    times = []
    for _ in range(EXCHANGES):
        begin = time.perf_counter()
        dit.exchange.to_heads(q, dit.heads, tokens)()
        times.append(time.perf_counter() - begin)
    return sorted(times)[len(times) // 2]


if __name__ == "__main__":
    main()
