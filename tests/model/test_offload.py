"""Modules that are on the card only while they run (on CUDA tensors that hold no numbers)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from magi_world.model.offload import awake, offload
from magi_world.model.tiling import TileConfig
from magi_world.model.vae import VAE
from magi_world.world.world import World
from tests.fake_cuda import cuda_parts, fake_cuda
from tests.tiny import tiny_parts

CARD = torch.device("cuda", 0)


def where(module: nn.Module) -> set[str]:
    return {p.device.type for p in module.parameters()}


def test_weights_come_for_a_call_and_go() -> None:
    seen = []

    class Looking(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(where(self))
            if len(x) == 3:
                raise ValueError("three")
            return super().forward(x)

    with fake_cuda() as traffic:
        module = Looking(4, 4).requires_grad_(False)
        offload(module, CARD)
        assert where(module) == {"cpu"}
        traffic.clear()
        assert module(torch.empty(2, 4, device="cuda")).device.type == "cuda"
        assert (seen[-1], where(module)) == ({"cuda"}, {"cpu"})
        assert len(traffic.uploads) == 2
        assert traffic.waits == traffic.downloads == []
        with pytest.raises(ValueError, match="three"):
            module(torch.empty(3, 4, device="cuda"))
        assert where(module) == {"cpu"}
        traffic.clear()
        with awake(module):
            for _ in range(5):
                module(torch.empty(2, 4, device="cuda"))
            assert where(module) == {"cuda"}
        assert where(module) == {"cpu"}
        assert len(traffic.uploads) == 2


def test_a_module_that_stays_needs_nothing() -> None:
    with awake(nn.Linear(2, 2)):
        pass


@pytest.mark.parametrize("tile", [None, TileConfig(32, 32, 8)])
def test_a_world_with_an_autoencoder_that_leaves(tile: TileConfig | None) -> None:
    parts = tiny_parts(num_steps=2)
    height, width = parts.config.frame_size
    image = np.zeros((height, width, 3), np.uint8)
    with fake_cuda() as traffic:
        card = replace(cuda_parts(parts), tile=tile)
        with torch.device("meta"):
            vae = VAE(parts.config.vae)
        state = {n: torch.empty(v.shape, dtype=torch.bfloat16) for n, v in vae.state_dict().items()}
        vae.load_state_dict(state, assign=True)
        vae.eval().requires_grad_(False)
        for half in (vae.encoder, vae.decoder):
            offload(half, CARD)
        uploads = []
        for own in (card, replace(card, vae=vae)):
            world = World(own)
            world.reset(image=image)
            world.step("turn left")
            traffic.clear()
            assert world.step("turn left").decoded.device.type == "cuda"
            assert traffic.waits == []
            uploads.append(len(traffic.uploads))
        assert where(vae) == {"cpu"}
        # Each of the decoder's weights comes once, however many tiles there are.
        assert uploads[1] == uploads[0] + len(list(vae.decoder.parameters()))
