"""One world over two processes of one thread each, against one process of one thread.

    python benchmarks/parallel_cpu.py [--ranks 2] [--seconds 120]

A transformer of middle size with random weights takes the steps of a few chunks; torchrun starts
the processes, on gloo. They take turns until the time is over, and every turn prints a JSON line of
all so far; the last one counts: how many times faster several are ("faster", the best chunk of each
kind), what `scale_model` says of it from the seconds of one process and of one exchange, and
whether the latents are equal. On a machine that does something else at the same time the figures
mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from statistics import median

import torch
from common import note, options, report, rounds, timed
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
from magi_world.sampling.kv_cache import KeyValueCache, MakeCache
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
SIDE, TINY = 24, 8  # of a latent frame: 4 x 12 x 12 = 576 tokens a chunk
EXCHANGES = 20
FULL = 3
SHARES = 12  # of the time, that a run of one turn measures


def main() -> None:
    """Start both, and compare."""
    parser = options(__doc__, seconds=120)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    seconds = 0.0 if given.tiny else given.seconds
    if given.worker:
        work(seconds, TINY if given.tiny else SIDE)
        return
    told: dict[int, list[dict]] = {1: [], given.ranks: []}
    end = time.monotonic() + seconds
    share = 0.0  # the first turn is as short as can be: it tells what starting takes
    while True:
        # Several take turns with one, so that a busy moment hits both.
        begun = time.monotonic()
        for ranks, runs in told.items():
            runs.append(start(ranks, share, given.tiny))
            taken = min(runs[-1]["seconds"])
            note(f"{ranks} of {list(told)} processes: {taken:.3f} s a chunk")
        turn = time.monotonic() - begun
        over = time.monotonic() + turn + 2 * (seconds / SHARES - share) > end
        report("parallel_cpu", compared(told, given.ranks), done=over)
        if over:
            return
        share = seconds / SHARES


def compared(told: dict[int, list[dict]], ranks: int) -> dict[str, object]:
    one, many = (min(min(run["seconds"]) for run in runs) for runs in told.values())
    several = min(told[ranks], key=lambda run: run["exchange"])
    ratio = predicted_ratio(one, several["exchanges"], several["exchange"], ranks)
    return {
        "ranks": ranks,
        "turns": len(told[ranks]),
        "faster": one / many,
        "predicted": ratio,
        "seconds_one": one,
        "seconds_several": many,
        "exchange_ms": 1e3 * several["exchange"],
        "equal": len({run["sum"] for runs in told.values() for run in runs}) == 1,
    }


def start(ranks: int, seconds: float, tiny: bool) -> dict:
    """Run the workers as torchrun does, one thread each; what rank 0 printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(ranks), __file__, "--worker", "--seconds", str(seconds)]
    command += ["--tiny"] if tiny else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"a process failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def work(seconds: float, side: int) -> None:
    """One process of a run."""
    torch.set_num_threads(1)
    place = torchrun_place()
    assert place is not None
    torch.manual_seed(0)
    dit = DiT(DIT).requires_grad_(False)
    if place.size == 1:
        tell(dit, KeyValueCache, seconds, side)
        return
    ranks = Ranks(place, Split(place.size), torch.device("cpu"))
    if not place.leads:
        part = RankDiT(DIT, ranks).requires_grad_(False)
        part.load_state_dict(dit.state_dict())
        measure_exchange(part, side)
        raise SystemExit(follow(ranks, part, VAE.__new__(VAE), KeyValueCache))
    channel = Channel(ranks)
    lead = LeadDiT(DIT, channel).requires_grad_(False)
    lead.load_state_dict(dit.state_dict())
    exchange = measure_exchange(lead, side)
    tell(lead, lead.keep(KeyValueCache), seconds, side, exchange)
    channel.close()


def tell(dit: DiT, make_cache: MakeCache, seconds: float, side: int, exchange: float = 0.0) -> None:
    """Dream chunks for so long, and print what each took."""
    config = StreamConfig(SAMPLER, (side, side))
    stream = ChunkStream(dit, config, make_cache=make_cache)
    stream.reset([0], [0], None)
    taken, total = [], 0.0
    # The history is full from the fourth chunk on.
    for number in rounds(seconds, least=FULL + 1):
        each, latents = timed(stream.stage, [0], [stream.null])
        if number >= FULL:
            taken.append(each)
        if number == FULL:  # of a chunk that every run makes
            total = float(latents.double().sum())
    # Denoising steps and the clean pass, whose last layer only writes.
    count = 3 * DIT.layers * (SAMPLER.num_steps + 1)
    told = {"seconds": taken, "sum": total, "exchange": exchange, "exchanges": count}
    print(json.dumps(told), flush=True)


def measure_exchange(dit: RankDiT, side: int) -> float:
    """Seconds of an exchange of a mean size: queries to their heads."""
    tokens = SAMPLER.chunk_width * (side // 2) ** 2
    mine = len(dit.exchange.tokens(tokens))
    q = torch.randn(1, 1, 1, mine, DIT.heads, DIT.head_dim)
    return median(
        timed(lambda: dit.exchange.to_heads(q, dit.heads, tokens)())[0] for _ in range(EXCHANGES)
    )


if __name__ == "__main__":
    main()
