"""A run that starts from a finished world: its parts are taken as they are, or refused by size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy import COMMANDS
from toy_world import write_config, write_world

from magi_world.io.package import read_package
from magi_world.training.assemble import inherit
from magi_world.training.codec import train_codec
from magi_world.training.data import ChunkDataset, LatentDataset
from magi_world.training.dynamics import TRANSFORMER, train_dynamics
from magi_world.training.loop import LoopConfig
from magi_world.training.phrases import PhraseTable
from magi_world.training.settings import WorldTrainConfig, read_settings
from magi_world.training.text import TEXT

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> WorldTrainConfig:
    return read_settings(write_config(tmp_path_factory.mktemp("config") / "bar.yaml"))


@pytest.fixture(scope="module")
def package(config: WorldTrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of the configuration's sizes, with random weights."""
    return write_world(config, tmp_path_factory.mktemp("worlds"))


def test_the_stages_begin_with_the_packages_parts(
    config: WorldTrainConfig, package: Path, train_data: ChunkDataset, tmp_path: Path
) -> None:
    inherit(package, config, tmp_path)
    theirs = read_package(package)
    vae = train_codec(config.codec, train_data, train_data, tmp_path, CPU)
    for name, value in theirs.vae.state_dict().items():
        assert torch.equal(vae.state_dict()[name], value), name
    phrases = PhraseTable(theirs.text, config.commands)  # type: ignore[arg-type]
    latents = LatentDataset(vae, train_data, COMMANDS)
    still = LoopConfig(steps=1, batch=2, muon_lr=0.0, adam_lr=0.0)
    dynamics = replace(config.dynamics, loop=still)
    dit = train_dynamics(dynamics, latents, latents, phrases, tmp_path, CPU)
    for name, value in theirs.dit.state_dict().items():
        assert torch.equal(dit.state_dict()[name], value), name
    for path in (package / TEXT).iterdir():
        assert (tmp_path / TEXT / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kept", ["codec.ckpt", "dynamics.ckpt", TRANSFORMER])
def test_a_run_with_checkpoints_is_left_alone(
    config: WorldTrainConfig, package: Path, tmp_path: Path, kept: str
) -> None:
    (tmp_path / kept).write_bytes(b"mine")
    inherit(package, config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [kept]
    assert (tmp_path / kept).read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("vae: {width: 48", "vae: {width: 96", r"codec\.vae is .*width=96.*must be .*width=48"),
        ("ffn: 64", "ffn: 96", r"dynamics\.dit is .*ffn=96.*must be .*ffn=64"),
    ],
)
def test_other_sizes_are_refused(
    package: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    other = read_settings(write_config(tmp_path / "other.yaml", (old, new)))
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(ValueError, match=message):
        inherit(package, other, folder)
    assert not list(folder.iterdir()), "nothing of a world that does not fit"


def test_no_such_world(config: WorldTrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no world 'nowhere'"):
        inherit("nowhere", config, tmp_path)
