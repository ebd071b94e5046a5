"""A tiny recording, shared by the tests of the trainer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toy import COMMANDS, record_config, tiny_vae

from magi_world.model.vae import VAE
from magi_world.training.collect import record
from magi_world.training.data import ChunkDataset, LatentDataset, split_shards


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished recording of the toy."""
    return record(record_config(), tmp_path_factory.mktemp("recording"))


@pytest.fixture(scope="session")
def train_data(recording: Path) -> ChunkDataset:
    return ChunkDataset(split_shards(recording, 1)[0], {"left": "right"})


@pytest.fixture(scope="module")
def latents(train_data: ChunkDataset) -> LatentDataset:
    torch.manual_seed(0)
    return LatentDataset(VAE(tiny_vae()), train_data, COMMANDS)
