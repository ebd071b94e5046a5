"""What several cards bring, on paper: bytes, seconds and memory of a split transformer.

    python benchmarks/scale_model.py            # the tables of docs/scale.md

Inputs are kernel speeds and links, below; change them and the tables follow. A step is modelled
layer by layer as `magi_world.parallel` runs it: own tokens are projected, keys and values travel
first and together, queries follow, attention runs on own heads, its result travels home while the
text is read, and the rest is own tokens again. `benchmarks/parallel_cpu.py` holds the same model
against what two processes on one machine really take.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tabulate import tabulate

from magi_world.config import DiTConfig, MagiConfig
from magi_world.io.released import preset
from magi_world.parallel.split import head_splits
from magi_world.sampling.schedule import time_grid

TEXT_ROWS = 128
GIB, TERA = 2**30, 1e12


@dataclass(frozen=True)
class Card:
    """Speeds of one device, in operations and bytes a second; memory in bytes.

    stream: bytes a second of norms, gates and sums, which read and write and compute little.
    """

    matmul: float
    attention: float
    stream: float
    memory: float


@dataclass(frozen=True)
class Link:
    """bandwidth: bytes a second that one card sends while it receives as much.

    latency: seconds of one exchange, whatever its size.
    """

    bandwidth: float
    latency: float


# An H100 as the kernels of this package are expected to run on it, not as its data sheet has it.
H100 = Card(matmul=620 * TERA, attention=550 * TERA, stream=2.6 * TERA, memory=80 * GIB)
# Bytes that norms, gates and sums move for a token, per unit of hidden width, where they are fused.
FUSED_BYTES = 57
LINKS = {
    "NVLink": Link(350e9, 20e-6),
    "PCIe 5": Link(45e9, 30e-6),
    "400G": Link(42e9, 40e-6),
}
SIZES = {"384": (384, 384), "720p": (720, 1280)}


@dataclass(frozen=True)
class LayerCost:
    """One layer of one forward, on one of R ranks. Operations, bytes, and seconds of each part."""

    matmul_ops: float
    own_ops: float
    text_ops: float
    stream_bytes: float
    bytes_in: float
    bytes_home: float

    @property
    def bytes(self) -> float:
        """All that a rank sends."""
        return self.bytes_in + self.bytes_home

    def seconds(self, card: Card, link: Link, ranks: int) -> float:
        """With the last exchange behind the text."""
        computed = self.matmul_ops / card.matmul + self.own_ops / card.attention
        computed += self.stream_bytes / card.stream
        text = self.text_ops / card.attention
        if ranks == 1:
            return computed + text
        sent = 2 * link.latency + self.bytes_in / link.bandwidth
        home = link.latency + self.bytes_home / link.bandwidth
        return computed + sent + max(text, home)


def layer_cost(dit: DiTConfig, tokens: int, keys: int, ranks: int, itemsize: int = 2) -> LayerCost:
    """A layer over ``tokens`` queries that see ``keys`` keys each."""
    inner, groups = dit.heads * dit.head_dim, dit.kv_groups * dit.head_dim
    wide = dit.ffn * (3 if dit.gated else 2)
    per_token = 2 * dit.hidden * (2 * inner + 2 * groups + 2 * inner + wide)
    # A group that several ranks share is sent to each of them.
    sent_groups = max(dit.kv_groups, ranks) * dit.head_dim
    away = tokens / ranks * (ranks - 1) / ranks * itemsize
    return LayerCost(
        matmul_ops=tokens / ranks * per_token,
        own_ops=4 * tokens * keys * inner / ranks,
        text_ops=4 * tokens / ranks * TEXT_ROWS * inner,
        stream_bytes=FUSED_BYTES * dit.hidden * tokens / ranks,
        bytes_in=away * (2 * sent_groups + inner),
        bytes_home=away * inner,
    )


@dataclass(frozen=True)
class Forward:
    """tokens of all chunks in it, and the mean number of keys that each sees."""

    tokens: int
    keys: float


def forwards(config: MagiConfig) -> list[Forward]:
    """The forwards that make one chunk with ``window_size=1``, the history full."""
    sampler, chunk = config.sampler, chunk_tokens(config)
    times = time_grid(sampler.num_steps, sampler.shortcut_mode, sampler.shift)
    made = []
    for step in range(sampler.num_steps):
        seen = sampler.kv_range[step * len(sampler.kv_range) // sampler.num_steps]
        ranges = (seen,) if sampler.passes == 1 else (seen, seen, 1)
        made += [Forward(chunk, length * chunk) for length in ranges]
        # The nearly clean chunk is run a second time, seeing itself alone.
        if (
            sampler.passes == 1
            and sampler.solo_weight
            and float(times[step]) > sampler.solo_above_t
        ):
            made.append(Forward(chunk, chunk))
    return [*made, Forward(chunk, sampler.clean_range * chunk)]


def chunk_tokens(config: MagiConfig) -> int:
    """Tokens of a chunk."""
    height, width = config.latent_size
    patch = config.dit.patch
    return config.sampler.chunk_width * (height // patch) * (width // patch)


def chunk_seconds(config: MagiConfig, card: Card, link: Link, ranks: int) -> float:
    """One chunk of one world, without the autoencoder."""
    itemsize = 2 if config.dtype == "bfloat16" else 4
    return config.dit.layers * sum(
        layer_cost(config.dit, f.tokens, int(f.keys), ranks, itemsize).seconds(card, link, ranks)
        for f in forwards(config)
    )


def weight_bytes(dit: DiTConfig, itemsize: int = 2) -> float:
    """Of the layers; the rest is small."""
    inner, groups = dit.heads * dit.head_dim, dit.kv_groups * dit.head_dim
    wide = dit.ffn * (3 if dit.gated else 2)
    gates = 2 * dit.hidden * dit.condition_width
    layer = dit.hidden * (4 * inner + 2 * groups + wide + 2 * groups) + gates
    return dit.layers * layer * itemsize


def cache_bytes(config: MagiConfig, ranks: int, itemsize: int = 2) -> float:
    """Keys and values of one world on one rank."""
    groups = max(1, config.dit.kv_groups // ranks)
    slots = config.sampler.history + 1
    per_token = 2 * groups * config.dit.head_dim * config.dit.layers * itemsize
    return slots * chunk_tokens(config) * per_token


def operations(config: MagiConfig) -> tuple[float, float]:
    """Of one chunk on one card: products, and attention over keys and text."""
    costs = [layer_cost(config.dit, f.tokens, int(f.keys), 1) for f in forwards(config)]
    layers = config.dit.layers
    products = layers * sum(c.matmul_ops for c in costs)
    return products, layers * sum(c.own_ops + c.text_ops for c in costs)


def predicted_ratio(
    one_seconds: float, exchanges: int, exchange_seconds: float, ranks: int
) -> float:
    """How many times faster ``ranks`` are, from what one took and one exchange takes."""
    return one_seconds / (one_seconds / ranks + exchanges * exchange_seconds)


def split_of(cards: int, dit: DiTConfig) -> tuple[int, int]:
    """Ranks and stages for so many cards: heads first, then layers."""
    ranks = max(r for r in head_splits(dit) if cards % r == 0)
    return ranks, cards // ranks


def main() -> None:
    """Print the tables."""
    for name in ("magi-1-4.5b-distill", "magi-1-24b-distill"):
        for size, frames in SIZES.items():
            config = preset(name).with_options(num_steps=8, window_size=1, frame_size=frames)
            print(table(f"{name}, {size}, 8 steps", config))


def table(title: str, config: MagiConfig) -> str:
    """One model and size over 1 .. 64 cards, as Markdown."""
    tokens = chunk_tokens(config)
    head = [
        "cards", "ranks x stages", "MB sent a layer and rank", "GiB weights + history a card",
        *(f"s a chunk, {link}" for link in LINKS),
    ]  # fmt: skip
    rows = []
    for cards in (1, 2, 4, 8, 16, 32, 64):
        ranks, stages = split_of(cards, config.dit)
        if stages > config.dit.layers:
            continue
        cost = layer_cost(config.dit, tokens, tokens, ranks)
        memory = weight_bytes(config.dit) / stages + cache_bytes(config, ranks) / stages
        # Stages of one world work in turn: they bring room, not speed.
        seconds = (f"{chunk_seconds(config, H100, link, ranks):.2f}" for link in LINKS.values())
        sent, kept = f"{cost.bytes / 1e6:.1f}", f"{memory / GIB:.1f}"
        rows.append([cards, f"{ranks} x {stages}", sent, kept, *seconds])
    shown = tabulate(rows, head, "github", disable_numparse=True)
    return f"**{title}**: {tokens:,} tokens a chunk\n\n{shown}\n"


def launches(config: MagiConfig) -> int:
    """Exchanges of a chunk: three a layer and forward."""
    return 3 * config.dit.layers * len(forwards(config))


def worlds_of(card: Card, weights: float, per_world: float) -> int:
    """How many worlds' histories lie on a card beside the weights, a tenth left free."""
    return math.floor((0.9 * card.memory - weights) / per_world)


if __name__ == "__main__":
    main()
