"""Heads on the toy world: they learn what can be seen, and refuse what cannot be."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from magi_world.model.heads import Heads, HeadsConfig
from magi_world.training.data import LatentDataset
from magi_world.training.heads import FitHeadsConfig, fit_heads, labels, measure_heads
from magi_world.training.loop import LoopConfig

CPU = torch.device("cpu")


def test_heads_learn_what_can_be_seen(latents: LatentDataset, tmp_path: Path) -> None:
    config = FitHeadsConfig(
        LoopConfig(steps=150, batch=30, muon_lr=0.01, adam_lr=0.01, warmup=1, ema=0.5),
        events=("hit", "death"),
        reward={"hit": 2.0},
        end="death",
        noise=0.0,
    )
    heads = fit_heads(config, latents, ["hit"], tmp_path, CPU)
    known = labels(config, latents.data, ["hit"])
    assert known.shape == (60, 2)
    figures = measure_heads(heads, config, latents, ["hit"])
    assert figures["hit"]["brier"] < figures["hit"]["brier_of_share"]
    z = latents.latents(torch.zeros(60, dtype=torch.long), torch.arange(60))
    said = heads(z)
    torch.testing.assert_close(said["reward"], 2 * said["events"]["hit"])
    assert torch.equal(said["end"], said["events"]["death"])
    with pytest.raises(ValueError, match="jump"):
        fit_heads(replace(config, events=("hit", "jump", "death")), latents, ["hit"], tmp_path, CPU)


def test_heads_may_see_what_has_changed(latents: LatentDataset, tmp_path: Path) -> None:
    data = copy.copy(latents.data)
    # Where the bar is, compared with where it was: one chunk alone does not say it.
    place = torch.cat(data.frames)[:, 0, 0, :, 0].float().argmax(-1)
    rows = torch.arange(len(data))
    data.events = (place > place[data.before(rows)]).float()[:, None]
    data.mirror = {}
    latents = copy.copy(latents)
    latents.data = data
    config = FitHeadsConfig(
        LoopConfig(steps=200, batch=30, muon_lr=0.01, adam_lr=0.01, warmup=1, ema=0.5),
        events=("right",),
        noise=0.0,
        seen=2,
    )
    heads = fit_heads(config, latents, ["right"], tmp_path, CPU)
    found = measure_heads(heads, config, latents, ["right"])["right"]
    assert found["brier"] < 0.5 * found["brier_of_share"]
    side = torch.zeros_like(rows)
    both = latents.seen(side, rows, 2)
    alone = latents.latents(side, rows)
    first = rows[data.first == rows]
    assert torch.equal(both[first, :, : alone.shape[2]], alone[first])
    later = rows[data.first < rows]
    assert torch.equal(both[later, :, : alone.shape[2]], alone[later - 1])
    # A chunk alone is one in which nothing has changed, and who sees one leaves out the other.
    still = torch.cat([alone[:, :, :1].expand_as(alone), alone], 2)
    assert torch.equal(heads.logits(alone), heads.logits(still))
    plain = Heads(replace(heads.config, chunks=1))
    assert torch.equal(plain.logits(both), plain.logits(alone))


def test_rewards_must_be_for_what_is_predicted() -> None:
    loop = LoopConfig(steps=1, batch=1)
    for wrong, message in (
        ({"events": ("hit",), "reward": {"jump": 1.0}}, r"reward names \['jump'\].*\['hit'\]"),
        ({"events": ("hit",), "end": "death"}, "heads.end is 'death'"),
        ({"reward": {"death": 1.0}}, r"reward names \['death'\]"),
        ({"reward": "own"}, "heads.reward is 'own'"),
    ):
        with pytest.raises(ValueError, match=message):
            FitHeadsConfig(loop, **wrong)  # type: ignore[arg-type]
    assert FitHeadsConfig(loop).predicted == ()
    assert FitHeadsConfig(loop, reward="environment", end="death").predicted == ("death",)


def test_the_environments_own_reward_is_learned(latents: LatentDataset, tmp_path: Path) -> None:
    config = FitHeadsConfig(
        LoopConfig(steps=150, batch=30, muon_lr=0.01, adam_lr=0.01, warmup=1, ema=0.5),
        reward="environment",
        end="death",
        noise=0.0,
    )
    data = copy.copy(latents.data)
    # How far the bar is from the middle: it can be seen in the picture, mirrored or not.
    place = torch.cat(data.frames)[:, -1, 0, :, 0].float().argmax(-1)
    data.reward, data.events = 100 + 3.0 * (place - 7.5).abs(), torch.zeros(len(data), 0)
    latents = copy.copy(latents)
    latents.data = data
    heads = fit_heads(config, latents, [], tmp_path, CPU)
    figures = measure_heads(heads, config, latents, [])
    assert set(figures) == {"death", "reward"}
    assert figures["reward"]["explained"] > 0.6
    assert figures["reward"]["mean"] == pytest.approx(float(data.reward.mean()))
    said = heads(latents.latents(torch.zeros(60, dtype=torch.long), torch.arange(60)))
    assert said["reward"].mean().item() == pytest.approx(figures["reward"]["mean"], rel=0.05)


def test_heads_refuse_wrong_shapes() -> None:
    config = HeadsConfig(6, 2, (2, 2), ("a",), (1.0,))
    with pytest.raises(ValueError, match=r"\(6, 2, 2, 2\)"):
        Heads(config)(torch.zeros(1, 6, 2, 4, 4))
    with pytest.raises(ValueError, match="must have one for each"):
        HeadsConfig(6, 2, (2, 2), ("a", "b"), (1.0,))
    with pytest.raises(ValueError, match="end is 'b'"):
        HeadsConfig(6, 2, (2, 2), ("a",), (1.0,), end="b")
    with pytest.raises(ValueError, match="chunks is 3"):
        HeadsConfig(6, 2, (2, 2), ("a",), (1.0,), chunks=3)
