"""An unfinished run is packed, dreamt in and reported, and never stopped by that."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toy_world import write_config, write_text

from magi_world import load_world
from magi_world.io.package import read_record
from magi_world.io.safetensors_io import save_tensors
from magi_world.model.dit import DiT
from magi_world.model.vae import VAE
from magi_world.training.codec import CODEC
from magi_world.training.dynamics import start
from magi_world.training.report import Watcher, pack_unfinished
from magi_world.training.run import Run, open_run
from magi_world.training.text import TEXT


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose autoencoder is finished and whose transformer has a checkpoint."""
    opened = open_run(write_config(tmp_path / "bar.yaml"), tmp_path / "run", "cpu")
    write_text(opened.folder / TEXT)
    save_tensors(opened.folder / CODEC, VAE(opened.config.codec.vae).state_dict())
    model = DiT(opened.config.dynamics.dit)
    start(model, 0)
    torch.save({"ema": model.state_dict(), "step": 2}, opened.folder / "dynamics.ckpt")
    return opened


def test_an_unfinished_run_plays(run: Run) -> None:
    assert pack_unfinished(run) == "dynamics, step 2 of 4"
    assert read_record(run.world)["quality"] == {"unfinished": "dynamics, step 2 of 4"}
    world = load_world(run.folder, device="cpu")
    world.reset(seed=0)
    assert world.step("go left").frames.shape == (1, 8, 16, 16, 3)
    with Watcher(run, every=0.05) as watcher:
        watcher._thread.join(timeout=0.1)
        while not (run.folder / "dream.gif").exists():
            assert watcher._thread.is_alive()
            watcher._thread.join(timeout=0.1)
    page = (run.folder / "report.html").read_text()
    assert "dynamics, step 2 of 4. 4 worlds" in page
    assert "data:image/gif;base64," in page


def test_what_fails_beside_the_training_is_told_and_does_not_stop_it(run: Run) -> None:
    torch.save({"ema": {}, "step": 3}, run.folder / "dynamics.ckpt")
    watcher = Watcher(run)
    watcher._try_dream()
    watcher.report()
    assert "no dream: " in (run.folder / "report.html").read_text()
    (run.folder / "dynamics.ckpt").unlink()
    with pytest.raises(ValueError, match=r"has no dynamics\.ckpt; train first"):
        pack_unfinished(run)
