"""The comparison of the autoencoder's optimisers, toy-sized, as a user starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_world import write_config

from magi_world.model.vae import VAE
from magi_world.training.codec import psnr, train_codec
from magi_world.training.data import ChunkDataset, split_shards
from magi_world.training.settings import read_settings

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "codec_optimisers.py"


@pytest.mark.slow
def test_both_ways_from_one_start(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(recording)
    changes = ("loop: {steps: 4, batch: 4, ", "loop: {steps: 6, batch: 4, muon_lr: 0.01, ")
    config = write_config(tmp_path / "bar.yaml", changes)
    line = [str(config), "--run", str(tmp_path), "--probes", "2", "--device", "cpu"]
    lrs = ["--adamw-lrs", "0.01", "0"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *line, *lrs], capture_output=True, text=True, check=True
    )
    (printed,) = done.stdout.splitlines()
    told = json.loads(printed)
    assert told["what"] == "codec_optimisers"
    curves = {name: told[name] for name in ("muon", "adamw_0.01", "adamw_0")}
    assert all(curve["step"] == [3, 6] for curve in curves.values())
    assert all(0 < a < b for a, b in (curve["seconds"] for curve in curves.values()))
    assert len({tuple(curve["loss"]) for curve in curves.values()}) == 3
    # Its loop is the trainer's: Muon's curve ends where train-world's autoencoder does.
    settings = read_settings(config).codec
    train, held_out = (ChunkDataset(paths) for paths in split_shards(recording, 1))
    train_codec(settings, train, held_out, tmp_path, torch.device("cpu"))
    model = VAE(settings.vae)
    model.load_state_dict(torch.load(tmp_path / "codec.ckpt", weights_only=True)["ema"])
    expected = psnr(model, held_out, torch.arange(len(held_out)))
    assert curves["muon"]["psnr_db"][-1] == pytest.approx(expected, abs=0.01)
