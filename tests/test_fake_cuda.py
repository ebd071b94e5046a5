"""The path on a card, without one: devices, precisions, copies and waits (`tests.fake_cuda`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from magi_world.engine import EngineConfig, prepare_parts
from magi_world.sampling.stream import ChunkStream, StreamConfig
from magi_world.world.parts import WorldParts
from magi_world.world.world import World
from tests.fake_cuda import Traffic, cuda_dit, cuda_parts, fake_cuda
from tests.tiny import tiny_parts

KINDS = {
    "distilled": {"num_steps": 2},
    "window": {"num_steps": 2, "window_size": 2},
    "three passes": {"num_steps": 2, "passes": 3, "distilled": False, "window_size": 2},
}
COMMANDS = ["turn left", "walk forward", "turn right"]


def stepped(parts: WorldParts, worlds: int, traffic: Traffic, steps: int = 2) -> World:
    """A world in the steady state; ``traffic`` is that of its last step."""
    world = World(parts, worlds)
    world.reset(seed=0)
    for _ in range(steps):
        traffic.clear()
        chunk = world.step(COMMANDS[:worlds])
        assert chunk.decoded.device.type == "cuda"
        assert chunk.decoded.dtype == torch.uint8
    return world


@pytest.mark.parametrize("kind", KINDS)
def test_one_world_never_waits(kind: str) -> None:
    parts = tiny_parts(**KINDS[kind])
    with fake_cuda() as traffic:
        stepped(cuda_parts(parts), 1, traffic)
    assert traffic.waits == []
    assert traffic.downloads == []
    # The noise of the chunk that is admitted, and nothing else.
    assert len(traffic.uploads) == 1


@pytest.mark.parametrize("worlds", [1, 3])
def test_recorded_forwards_neither_wait_nor_copy(worlds: int) -> None:
    parts = tiny_parts(num_steps=2)
    engine = EngineConfig(graphs=True, clean_beside=True, permute_proj=True)
    with fake_cuda() as traffic:
        deep = prepare_parts(cuda_parts(parts), engine)
        world = stepped(deep, worlds, traffic, steps=6)
        assert world._stream.denoiser.graphs.known  # type: ignore[union-attr]
    assert traffic.waits == traffic.downloads == []
    assert len(traffic.uploads) == worlds  # the noise of each


@pytest.mark.parametrize("kind", ["distilled", "three passes"])
def test_copies_of_a_batch_do_not_grow_with_layers(kind: str) -> None:
    parts = tiny_parts(**KINDS[kind])
    uploads = []
    with fake_cuda() as traffic:
        for layers in (1, 3):
            deep = cuda_parts(parts)
            sizes = replace(deep.config.dit, layers=layers)
            deep = replace(deep, dit=cuda_dit(sizes), config=replace(deep.config, dit=sizes))
            world = stepped(deep, 3, traffic, steps=1)
            # Of one world the history is gone: three worlds, two lengths of history.
            world.reset(seed=5, worlds=[1])
            traffic.clear()
            world.step(COMMANDS)
            uploads.append(len(traffic.uploads))
            assert traffic.waits == []
    assert uploads[0] == uploads[1]


def test_fp8_keeps_one_precision() -> None:
    parts = tiny_parts(num_steps=2)
    with fake_cuda() as traffic:
        stepped(cuda_parts(parts, fp8=True), 2, traffic)
        with pytest.raises(ValueError, match=r"fp8.*bfloat16"):
            World(cuda_parts(parts, torch.float32, fp8=True), 1)


def test_every_start_comes_to_the_card() -> None:
    parts = tiny_parts(num_steps=2)
    height, width = parts.config.frame_size
    image = np.zeros((height, width, 3), np.uint8)
    with fake_cuda():
        world = World(cuda_parts(parts), 2)
        starts: list[dict] = [
            {"image": image},
            {"video": np.stack([image] * 9)},
            {"start": 1},
            {"start": "text"},
        ]
        for start in starts:
            chunk = world.reset(seed=3, **start)
            assert chunk.latents.device == chunk.decoded.device == world.device
            world.step("turn left")
        # One world from a picture beside one that goes on.
        assert world.reset(seed=3, image=image, worlds=[1]).decoded.device == world.device
        world.step("turn left")


@pytest.mark.parametrize(
    ("mistake", "seen"),
    [
        (lambda x: x[[1, 0]], "waits"),
        (lambda x: x.cpu(), "downloads"),
        (lambda x: bool(x.sum()), "waits"),
        (lambda x: x + torch.tensor([1.0, 2.0], device=x.device)[:, None], "uploads"),
        (lambda x: x.copy_(torch.ones(2, 3)), "uploads"),
    ],
)
def test_traffic_is_seen(mistake: Callable[[torch.Tensor], object], seen: str) -> None:
    with fake_cuda() as traffic:
        mistake(torch.empty(2, 3, device="cuda"))
    assert len(getattr(traffic, seen)) == 1


def test_mixed_devices_are_seen() -> None:
    with fake_cuda(), pytest.raises(RuntimeError, match="device"):
        torch.empty(2, device="cuda") + torch.empty(2)


def test_flash_is_refused_where_it_cannot_run() -> None:
    parts = tiny_parts(num_steps=2)
    for name in ("flash", "magi"):
        with pytest.raises(ValueError, match=name):
            ChunkStream(parts.dit, StreamConfig(parts.config.sampler, (4, 6), attention=name))
