"""A whole training: simulator to package, measured, gone on with, exported; every stage tiny."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from toy import COMMANDS
from toy_world import write_config, write_text

from magi_world import load_world
from magi_world.demos import cli
from magi_world.io.package import check_package, read_package, read_record
from magi_world.training.dynamics import TRANSFORMER
from magi_world.training.text import TEXT
from magi_world.training.train import train_world

pytestmark = pytest.mark.slow
STAGES = ("codec", "dynamics", "distill", "decoder", "heads", "classifier")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("config") / "bar.yaml")


@pytest.fixture(scope="module")
def run(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("run")
    write_text(folder / TEXT)
    assert train_world(config, folder, "cpu") == folder / "world"
    return folder


def test_the_trained_world_runs(run: Path) -> None:
    assert check_package(run / "world") == []
    for stage in STAGES:
        state = torch.load(run / f"{stage}.ckpt", weights_only=True)
        assert state["step"] == state["config"]["steps"], stage
    world = load_world(run / "world", device="cpu")
    assert world.spec.command_names == COMMANDS
    seen = [world.reset(seed=0), *(world.step(c) for c in ("go left", "left then", "stay"))]
    assert all(chunk.frames.shape == (1, 8, 16, 16, 3) for chunk in seen[1:])
    assert not (seen[1].frames == seen[2].frames).all()
    assert sorted(path.name for path in (run / "strips").iterdir()) == [
        "long_dream.png",
        "reconstruction.png",
        "rollout_16.png",
        "rollout_64.png",
    ]


def test_what_is_finished_is_not_done_again(
    config: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {name: (run / f"{name}.jsonl").read_bytes() for name in STAGES}
    weights = (run / "world" / "dit.safetensors").read_bytes()
    kept = read_record(run / "world")["quality"]
    line = ["eval-world", str(config), "--run", str(run), "--device", "cpu", "--json"]
    assert cli.main(line) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (run / "world" / "dit.safetensors").read_bytes() == weights
    assert {name: (run / f"{name}.jsonl").read_bytes() for name in STAGES} == before
    assert set(figures["rollout_psnr_db"]) == {"1", "4", "16", "64"}
    assert figures["rollout_psnr_db"]["1"] == pytest.approx(kept["rollout_psnr_db"]["1"], abs=1e-3)
    assert set(read_record(run / "world")["quality"]["heads"]) == {"hit", "death"}
    with pytest.raises(ValueError, match="holds checkpoints"):
        train_world(config, run, "cpu", resume=False)


def test_another_run_starts_from_it(run: Path, tmp_path: Path) -> None:
    for needed in ("matplotlib", "model2vec", "transformers"):  # the command checks for them
        pytest.importorskip(needed)
    trained = "loop: {steps: 4, batch: 2, warmup: 1, ema: 0.5}\n  chunks: 3"
    still = "loop: {steps: 1, batch: 2, muon_lr: 0.0, adam_lr: 0.0}\n  chunks: 3"
    config = write_config(tmp_path / "again.yaml", (trained, still))
    folder = tmp_path / "again"
    line = ["train-world", str(config), "--run", str(folder), "--from", str(run / "world")]
    assert cli.main([*line, "--device", "cpu"]) == 0
    theirs = read_package(run / "world")
    started = torch.load(folder / "dynamics.ckpt", weights_only=True)["ema"]
    for name, value in theirs.dit.state_dict().items():
        assert torch.equal(started[name], value), name
    assert (folder / TRANSFORMER).exists()
    assert not (folder / "codec.ckpt").exists(), "the autoencoder is taken as it is"
    ours = read_package(folder / "world")
    encoder = [(k, v) for k, v in theirs.vae.state_dict().items() if k.startswith("encoder")]
    assert encoder
    for name, value in encoder:
        assert torch.equal(ours.vae.state_dict()[name], value), name


def test_its_recording_becomes_a_dataset(
    config: Path,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    minari = pytest.importorskip("minari")
    pytest.importorskip("h5py")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    line = ["export-recording", str(config), "--run", str(run), "--part", "train", "--minari"]
    assert cli.main([*line, "bar/recorded-v0", "--observation", "frame"]) == 0
    assert capsys.readouterr().out == "bar/recorded-v0: 2 episodes, 158 chunks\n"
    episode = next(minari.load_dataset("bar/recorded-v0").iterate_episodes())
    assert episode.observations.shape == (80, 16, 16, 3)
    assert set(episode.actions) == set(COMMANDS)
    assert cli.main([*line, "bar/recorded-v0"]) == 2
    line[3] = str(tmp_path / "empty")
    assert cli.main([*line, "a-v0"]) == 2
    assert "it needs more than held_out_shards" in capsys.readouterr().err
