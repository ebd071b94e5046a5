"""The model of several cards, against counts that were made another way."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import scale_model

from magi_world.io.released import preset


@pytest.mark.parametrize(
    ("name", "side", "products", "attention"),
    [
        ("magi-1-4.5b-distill", 384, 308.4, 155.5),
        ("magi-1-4.5b-distill", 256, 137.0, 31.0),
        ("magi-1-24b-distill", 256, 753.7, 87.5),
    ],
)
def test_operations_of_a_chunk(name: str, side: int, products: float, attention: float) -> None:
    """TFLOP counted from logged kernels: 8 steps, window 1."""
    config = preset(name).with_options(num_steps=8, window_size=1, frame_size=(side, side))
    found = [ops / 1e12 for ops in scale_model.operations(config)]
    assert found == pytest.approx([products, attention], rel=0.02)


def test_more_ranks_are_faster_until_the_heads_end() -> None:
    config = preset("magi-1-4.5b-distill").with_options(num_steps=8, window_size=1)
    seconds = [
        scale_model.chunk_seconds(config, scale_model.H100, scale_model.LINKS["NVLink"], ranks)
        for ranks in (1, 2, 4, 8)
    ]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] / seconds[1] <= 2
    assert scale_model.split_of(16, config.dit) == (8, 2)


def test_the_bytes_of_a_layer() -> None:
    dit = preset("magi-1-4.5b-distill").dit
    cost = scale_model.layer_cost(dit, tokens=1000, keys=1000, ranks=2)
    # Of 500 own tokens half the heads go: 8 groups of keys and values, 24 queries, 24 results.
    assert cost.bytes == 500 * 0.5 * (2 * 8 + 24 + 24) * 128 * 2
