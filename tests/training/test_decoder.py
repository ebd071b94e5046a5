"""The decoder's own stage: on dreamed latents, against a discriminator, the encoder as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy import COMMANDS, tiny_dit, tiny_vae
from toy_text import toy_phrases

from magi_world.model.dit import DiT
from magi_world.model.vae import VAE, frames_to_video
from magi_world.sampling.schedule import time_at
from magi_world.training.codec import CodecConfig, start_from_pca
from magi_world.training.data import ChunkDataset, LatentDataset
from magi_world.training.decoder import PatchDiscriminator, Rivals, train_decoder
from magi_world.training.dynamics import DynamicsConfig, foreseen, start
from magi_world.training.loop import LoopConfig

CPU = torch.device("cpu")
LOOP = LoopConfig(steps=6, batch=3, muon_lr=1e-4, adam_lr=1e-4, warmup=1, ema=0.0)
CONFIG = CodecConfig(tiny_vae(), LOOP, LOOP, compile=False)


def fresh(data: ChunkDataset) -> VAE:
    torch.manual_seed(0)
    vae = VAE(tiny_vae())
    start_from_pca(vae, frames_to_video(data.pixels(torch.arange(len(data)))))
    return vae


@pytest.mark.parametrize("adversarial", [0.0, 0.5])
def test_only_the_decoder_is_trained_and_it_resumes(
    train_data: ChunkDataset, tmp_path: Path, adversarial: float
) -> None:
    config = replace(CONFIG, adversarial=adversarial)
    vae = fresh(train_data)
    before = {k: v.clone() for k, v in vae.state_dict().items()}
    train_decoder(config, vae, train_data, train_data, tmp_path, CPU)
    moved = {k for k, v in vae.state_dict().items() if not torch.equal(v, before[k])}
    assert moved
    assert all(k.startswith("decoder.") for k in moved)
    again = train_decoder(config, fresh(train_data), train_data, train_data, tmp_path, CPU)
    for (name, a), b in zip(vae.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    # A longer stage goes on from there, the discriminator included.
    longer = replace(config, decoder=replace(LOOP, steps=8))
    train_decoder(longer, again, train_data, train_data, tmp_path, CPU)
    rows = (tmp_path / "decoder.jsonl").read_text().splitlines()
    assert [json.loads(r)["step"] for r in rows if "loss" in r] == [6, 8]
    assert ("judge" in json.loads(rows[0])) == bool(adversarial)


def test_the_discriminator_learns_and_pulls(train_data: ChunkDataset) -> None:
    video = frames_to_video(train_data.pixels(torch.arange(16)))
    soft = torch.nn.functional.avg_pool3d(video, (1, 3, 3), 1, (0, 1, 1))
    rivals = Rivals(fresh(train_data))
    optimiser = torch.optim.Adam(rivals.judge.parameters(), lr=1e-3)
    z = rivals.vae.encode(video)
    for _ in range(60):
        made = rivals.vae.decode(z) * 0 + soft  # soft, but of the decoder's making
        error = (rivals.vae.decode(z) - video).square().mean()
        _, judged = rivals.losses(made, video, error)
        optimiser.zero_grad()
        judged.backward()
        optimiser.step()
    assert rivals.judge(video).mean() > rivals.judge(soft).mean() + 0.5
    # Its pull on the last layer is as hard as the error's, and does not move the judge itself.
    rivals.zero_grad()
    made = rivals.vae.decode(z)
    error = (made - video).square().mean()
    found, _ = rivals.losses(made, video, error)
    last = rivals.vae.decoder.last_layer.weight
    pulls = [torch.autograd.grad(x, last, retain_graph=True)[0].norm() for x in (error, found)]
    torch.testing.assert_close(pulls[0], pulls[1], rtol=1e-2, atol=0)
    found.backward()
    assert all(p.grad is None for p in rivals.judge.parameters())
    # One frame alone can be judged, too.
    assert PatchDiscriminator()(video[:, :, :1]).shape[0] == len(video)


def test_it_is_trained_on_what_the_transformer_expects(
    train_data: ChunkDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = fresh(train_data)
    latents = LatentDataset(vae, train_data, COMMANDS)
    phrases = toy_phrases()
    loop = LoopConfig(steps=1, batch=2)
    dynamics = DynamicsConfig(tiny_dit(), loop, chunks=3, history=2, autocast=False)
    model = DiT(dynamics.dit)
    start(model, 0)
    times: list[Tensor] = []

    def perfect(model: DiT, clean: Tensor, x: Tensor, t: Tensor, *rest: object) -> Tensor:
        times.append(t)
        truth = latents.latents(side, rows).unflatten(0, (-1, 3))
        return (truth - x) / (1 - t)[..., None, None, None, None]

    generator = torch.Generator().manual_seed(3)
    found, sides = latents.draw(3, 3, torch.Generator().manual_seed(3), dynamics.balance)
    rows, side = found.flatten(), sides[:, None].expand(-1, 3).flatten()
    monkeypatch.setattr("magi_world.training.dynamics.velocity", perfect)
    frames, guess = foreseen(model, dynamics, latents, phrases, 4, 5, generator)
    monkeypatch.undo()
    # Five chunks of three clips, never the first of one, each with the frames that came.
    assert frames.shape[0] == guess.shape[0] == 5
    torch.testing.assert_close(times[-1], torch.full((3, 3), float(time_at(torch.tensor(0.75)))))
    torch.testing.assert_close(guess, vae.encode(frames_to_video(frames)), rtol=0.01, atol=0.02)

    asked: list[int] = []

    def watched(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        asked.append(count)
        return foreseen(model, dynamics, latents, phrases, 4, count, generator)

    config = replace(CONFIG, foreseen=1.0)
    train_decoder(config, vae, train_data, train_data, tmp_path, CPU, watched)
    assert asked == [LOOP.batch] * LOOP.steps
    never = replace(CONFIG, foreseen=0.0, decoder=replace(LOOP, steps=8))
    train_decoder(never, vae, train_data, train_data, tmp_path, CPU, partial(pytest.fail, "asked"))


def test_wrong_shares_are_refused(train_data: ChunkDataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"codec.foreseen is 1.5; it must be a share"):
        replace(CONFIG, foreseen=1.5)
    with pytest.raises(ValueError, match=r"codec.adversarial is -1"):
        replace(CONFIG, adversarial=-1)
    config, vae = replace(CONFIG, foreseen=0.5), fresh(train_data)
    with pytest.raises(ValueError, match=r"codec.foreseen is 0.5; it needs a transformer"):
        train_decoder(config, vae, train_data, train_data, tmp_path, CPU)
