"""The stream against a second, plain transcription of the same mathematics."""

from __future__ import annotations

import pytest
import torch

from benchmarks.plain import PlainStream
from magi_world.config import SamplerConfig
from magi_world.sampling.stream import ChunkStream, StreamConfig
from tests.tiny import tiny_dit, tiny_parts


@pytest.mark.parametrize("window", [1, 2, 4])
@pytest.mark.parametrize("clean_kv_range", [1, 2, -1])
def test_stream_equals_plain_transcription(window: int, clean_kv_range: int) -> None:
    dit = tiny_dit(tiny_parts().config.dit)
    sampler = SamplerConfig(
        num_steps=8,
        window_size=window,
        chunk_width=2,
        passes=1,
        distilled=True,
        kv_range=(4, 3, 3, 2),
        clean_kv_range=clean_kv_range,
    )
    stream = ChunkStream(dit, StreamConfig(sampler, (4, 6)))
    stream.reset([0], [0], None)
    features = torch.randn(5, 16, generator=torch.Generator().manual_seed(2))
    caption, plain = stream.text_kv(features), PlainStream(dit, sampler, (4, 6))
    for _ in range(7):
        while (landed := stream.stage([0], [caption])) is None:
            pass
        torch.testing.assert_close(landed[0], plain.next_chunk(features), rtol=0, atol=1e-5)
