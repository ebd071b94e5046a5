"""Phrases, flow matching, distillation and starts on the toy world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toy import COMMANDS, tiny_dit
from toy_text import Letters, toy_phrases

from magi_world.model.dit import DiT
from magi_world.sampling.schedule import time_at, time_grid
from magi_world.training.assemble import AHEAD, pick_starts
from magi_world.training.data import LatentDataset
from magi_world.training.distill import DistillConfig, step_times, train_distill
from magi_world.training.dynamics import (
    LEAST_CHANGE,
    MOST_ROUNDS,
    DynamicsConfig,
    channel_weights,
    draw_batch,
    dreamed,
    even_weights,
    goal,
    mix,
    rounds_of,
    start,
    train_dynamics,
    usual_changes,
    weigh_targets,
)
from magi_world.training.forward import velocity
from magi_world.training.loop import LoopConfig, step_generator
from magi_world.training.phrases import CommandConfig, PhraseTable

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def phrases() -> PhraseTable:
    return toy_phrases()


def dynamics(**loop: float) -> DynamicsConfig:
    return DynamicsConfig(
        tiny_dit(),
        LoopConfig(**{"steps": 4, "batch": 2, "warmup": 1, **loop}),  # type: ignore[arg-type]
        chunks=3,
        history=2,
        autocast=False,
        compile=False,
    )


def test_targets_weigh_by_what_their_command_usually_changes(
    phrases: PhraseTable, latents: LatentDataset
) -> None:
    plain = dynamics()
    changes = usual_changes(latents, channel_weights(plain, latents))
    assert changes.shape == (len(COMMANDS) + 1, *latents.shape[2:])
    torch.testing.assert_close(even_weights(plain, changes), torch.ones_like(changes))
    half, whole = (
        even_weights(replace(plain, even=power), changes)[:, 0, 0] for power in (0.5, 1.0)
    )
    # Standing still weighs most, a first chunk least.
    assert whole.argmax() == COMMANDS.index("stay")
    assert whole.argmin() == len(COMMANDS)
    ratio = whole / whole[-1]
    assert float(ratio[:-1].min()) > 1
    assert float(ratio.max()) <= 1 / LEAST_CHANGE + 1e-3
    torch.testing.assert_close((half / half[-1]).square(), ratio)
    # Of cells the one in which least changes.
    cells = even_weights(replace(plain, even_cells=0.5), changes)
    usual = changes[:-1].mean(0)
    assert cells[0].argmax() == usual.argmin()
    assert torch.equal(cells[0], cells[-1])
    assert cells.mean() == pytest.approx(1, abs=1e-4)
    both = even_weights(replace(plain, even=1.0, even_cells=0.5), changes)
    torch.testing.assert_close(both, whole[:, None, None] * cells[0])
    # Of which command a target is, a batch says; a first chunk is of none.
    batch = draw_batch(plain, latents, phrases, torch.Generator().manual_seed(0), CPU)
    assert batch.command.shape == batch.t.shape
    assert ((batch.command == -1) == (batch.after == -1)).all()
    assert torch.equal(batch.rows(slice(1)).command, batch.command[:1])


def test_a_target_weighs_by_its_command_and_by_what_happens_in_it(
    phrases: PhraseTable, latents: LatentDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hit,) = latents.data.event_names
    config = replace(dynamics(), weigh={"go left": 3.0, hit: 5.0})
    by_command, by_row = weigh_targets(config, latents, COMMANDS)
    assert by_command.tolist() == [3.0 if c == "go left" else 1.0 for c in (*COMMANDS, "first")]
    assert torch.equal(by_row, torch.where(latents.data.happened(hit), 5.0, 1.0))
    # And so the loss counts them, but for first chunks.
    told: list[Any] = []

    def caught(name: str, model: DiT, loss: Any, *rest: object) -> None:
        told.append((model, loss))

    monkeypatch.setattr("magi_world.training.dynamics.train", caught)
    train_dynamics(config, latents, latents, phrases, tmp_path, CPU)
    model, loss = told[0]
    weights = []
    for seed in range(4):
        b = draw_batch(config, latents, phrases, torch.Generator().manual_seed(seed), CPU)
        x = mix(b.target, b.noise, b.t)
        v = velocity(model, b.clean, x, b.t, b.after, b.captions, b.interval, config.history)
        error = (v - goal(config.dit, b, x)).square().mean((3, 4, 5))
        error = (error * channel_weights(config, latents)).mean(2)
        rows = b.row[:, b.after + 1]
        known = by_command[b.command] * torch.where(b.after < 0, 1.0, by_row[rows])
        value, _ = loss(0, torch.Generator().manual_seed(seed))
        torch.testing.assert_close(value, (error * known).mean())
        weights.append(known)
    assert set(torch.stack(weights).unique().tolist()) >= {1.0, 3.0, 5.0}


def test_it_may_start_as_a_copy_of_the_chunk_before(
    phrases: PhraseTable, latents: LatentDataset, tmp_path: Path
) -> None:
    room = {"layers": 3, "hidden": 96, "heads": 3, "kv_groups": 3, "head_dim": 32, "patch": 1}
    sizes = tiny_dit(**room, prediction="clean", condition="caption")
    errors = []
    for copying in (False, True):
        config = replace(dynamics(steps=0), dit=sizes, copy_start=copying)
        folder = tmp_path / str(copying)
        folder.mkdir()
        model = train_dynamics(config, latents, latents, phrases, folder, CPU)
        b = draw_batch(config, latents, phrases, torch.Generator().manual_seed(5), CPU)
        x = mix(b.target, b.noise, b.t)
        with torch.no_grad():
            v = velocity(model, b.clean, x, b.t, b.after, b.captions, b.interval, config.history)
        errors.append(float((v - goal(sizes, b, x)).square()[:, b.after >= 0].mean()))
    assert errors[1] < 0.3 * errors[0]


def test_phrases_are_drawn_from_their_split(phrases: PhraseTable) -> None:
    command = torch.tensor([[0, 1], [2, 1]])
    for split, allowed in (("train", ("", " now")), ("held_out", (" then",))):
        seen = set()
        for i in range(8):
            rows, mask = phrases.draw(command, torch.Generator().manual_seed(i), split)
            assert rows.shape[:2] == mask.shape[:2] == (2, 2)
            seen.add(int(mask[1, 0].sum()))
        assert seen == {len("go right" + a) for a in allowed}
    rows, mask = phrases.rows(["go left"])
    assert torch.equal(rows[0][mask[0]], Letters().encode("go left"))
    assert (rows[0][~mask[0]] == 0).all()
    _, lossy = phrases.draw(command, torch.Generator().manual_seed(0), word_drop=1.0)
    _, whole = phrases.draw(command, torch.Generator().manual_seed(0))
    assert lossy[..., 0].all()
    assert lossy.sum() < whole.sum()
    with pytest.raises(ValueError, match="repeats trained"):
        CommandConfig(("a",), ("a",))


def test_batches_put_targets_behind_their_history(
    latents: LatentDataset, phrases: PhraseTable
) -> None:
    config = dynamics()
    batch = draw_batch(config, latents, phrases, torch.Generator().manual_seed(0), CPU)
    assert batch.after.tolist() == [-1, 0, 1] * 2
    assert batch.t.shape == (2, 6)
    # The copies of a target are stratified: one in the noisier half, one in the cleaner.
    assert (batch.t[:, :3] <= 0.1).all()
    assert (batch.t[:, 3:] >= 0.1).all()
    for k, after in enumerate(batch.after.tolist()):
        nearly = batch.clean[:, after + 1] - batch.target[:, k]
        assert nearly.abs().max() < config.history_noise * 8
    # With another grid they lie on that one, as far as it is learnt.
    late = replace(config, shift=0.5, until=0.8)
    other = draw_batch(late, latents, phrases, torch.Generator().manual_seed(0), CPU)
    end = time_at(torch.tensor([0.4, 0.8]), 0.5)
    assert (other.t[:, :3] <= end[0]).all()
    assert ((other.t[:, 3:] >= end[0]) & (other.t[:, 3:] <= end[1])).all()
    assert torch.equal(batch.target[:, :3], batch.target[:, 3:])
    assert not torch.equal(batch.noise[:, :3], batch.noise[:, 3:])


def test_history_from_the_models_own_dreams(
    latents: LatentDataset, phrases: PhraseTable, tmp_path: Path
) -> None:
    config = dynamics()
    model = DiT(config.dit)
    start(model, 0)
    generator = torch.Generator().manual_seed(0)
    batch = draw_batch(config, latents, phrases, generator, CPU)
    own = dreamed(model, config, batch, generator)
    assert own.clean.shape == batch.clean.shape
    assert not own.clean.requires_grad
    assert not torch.equal(own.clean, batch.clean)
    assert own.target is batch.target
    # A model that knows the way home dreams what was: nothing is left of the noise.
    home = replace(config, until=1e-6)
    truth = batch.clean

    def perfect(model: DiT, clean: Tensor, x: Tensor, t: Tensor, *rest: object) -> Tensor:
        return (truth - x) / (1 - t)[..., None, None, None, None]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("magi_world.training.dynamics.velocity", perfect)
        exact = dreamed(model, home, batch, generator)
    torch.testing.assert_close(exact.clean, truth, rtol=1e-5, atol=1e-5)

    # In a further round it goes on from what it dreamed in the one before: its errors pile up.
    def drifting(model: DiT, clean: Tensor, x: Tensor, t: Tensor, *rest: object) -> Tensor:
        return (clean.roll(1, dims=1) + 1 - x) / (1 - t)[..., None, None, None, None]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("magi_world.training.dynamics.velocity", drifting)
        twice = dreamed(model, home, batch, generator, rounds=2)
    torch.testing.assert_close(twice.clean, truth.roll(2, dims=1) + 2, rtol=1e-5, atol=1e-5)
    assert dreamed(model, home, batch, generator, rounds=0) is batch

    # From which times is for the configuration to say.
    for low, high in ((0.0, 0.25), (0.5, 1.0)):
        seen: list[Tensor] = []

        def watched(model: DiT, clean: Tensor, x: Tensor, t: Tensor, *rest: object) -> Tensor:
            seen.append(t)  # noqa: B023
            return torch.zeros_like(x)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("magi_world.training.dynamics.velocity", watched)
            for _ in range(20):
                dreamed(model, replace(config, own_times=(low, high)), batch, generator)
        place = torch.tensor([low, high]) * config.until
        assert time_at(place[0]) <= torch.stack(seen).min() < time_at(place[0]) + 0.05
        assert time_at(place[1]) - 0.1 < torch.stack(seen).max() <= time_at(place[1])
    with pytest.raises(ValueError, match=r"own_times is \[0.5, 0.2\]"):
        replace(config, own_times=(0.5, 0.2))
    with pytest.raises(ValueError, match=r"dynamics.often has {'hit': 0}"):
        replace(config, often={"hit": 0})
    with pytest.raises(ValueError, match=r"dynamics.weigh has {'stay': -1}"):
        replace(config, weigh={"stay": -1})
    always = replace(config, own_history=1.0, loop=LoopConfig(steps=2, batch=2, warmup=1))
    train_dynamics(always, latents, latents, phrases, tmp_path, CPU)


def test_histories_are_dreamed_as_often_as_asked() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [rounds_of(0.5, generator) for _ in range(400)]
    for rounds, share in enumerate([1 / 2, 1 / 4, 1 / 8]):
        assert drawn.count(rounds) / 400 == pytest.approx(share, abs=0.06)
    assert max(drawn) == MOST_ROUNDS
    assert rounds_of(0.0, generator) == 0


def test_flow_matching_learns(latents: LatentDataset, phrases: PhraseTable, tmp_path: Path) -> None:
    def error(model: DiT, held: DynamicsConfig) -> float:
        b = draw_batch(held, latents, phrases, torch.Generator().manual_seed(9), CPU)
        x = mix(b.target, b.noise, b.t)
        with torch.no_grad():
            v = velocity(model, b.clean, x, b.t, b.after, b.captions, b.interval, held.history)
        return float((v - (b.target - b.noise)).square().mean())

    fresh = DiT(tiny_dit())
    start(fresh, 0)
    config = dynamics(steps=30, muon_lr=0.02, adam_lr=0.01, ema=0.5)
    model = train_dynamics(config, latents, latents, phrases, tmp_path, CPU)
    assert error(model, config) < 0.8 * error(fresh, config)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_distillation_runs_and_resumes(
    latents: LatentDataset, phrases: PhraseTable, tmp_path: Path
) -> None:
    model = DiT(tiny_dit())
    start(model, 0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    config = DistillConfig(LoopConfig(steps=3, batch=2, warmup=1, seed=1))
    args = (latents, phrases, tmp_path, CPU)
    out = train_distill(config, dynamics(), model, *args)
    changed = [k for k, v in out.state_dict().items() if not torch.equal(v, before[k])]
    assert "final_linear.linear.weight" in changed
    again = DiT(tiny_dit())
    start(again, 5)
    again = train_distill(config, dynamics(), again, *args)
    for (name, a), b in zip(out.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    with pytest.raises(ValueError, match="half of finest"):
        DistillConfig(LoopConfig(steps=1, batch=2), num_steps=(16,))
    with pytest.raises(ValueError, match="must be even"):
        DistillConfig(LoopConfig(steps=1, batch=3))
    with pytest.raises(ValueError, match="at least 1"):
        DistillConfig(LoopConfig(steps=1, batch=2), guidance=0.5)


def test_distillation_folds_guidance_in(
    latents: LatentDataset, phrases: PhraseTable, tmp_path: Path
) -> None:
    """The student's one pass moves from the teacher's towards the guided one."""
    sizes = dynamics(steps=25, muon_lr=0.02, adam_lr=0.01, ema=0.5)
    teacher = train_dynamics(sizes, latents, latents, phrases, tmp_path, CPU)
    kept = {k: v.clone() for k, v in teacher.state_dict().items()}
    config = DistillConfig(
        LoopConfig(steps=12, batch=4, muon_lr=0.01, adam_lr=0.005, warmup=1, decay=0.9, ema=0.5),
        guidance=8.0,
    )
    student = train_distill(config, sizes, teacher, latents, phrases, tmp_path, CPU)
    teacher = DiT(sizes.dit)
    teacher.load_state_dict(kept)
    b = draw_batch(sizes, latents, phrases, torch.Generator().manual_seed(9), CPU)
    x = mix(b.target, b.noise, b.t)
    with torch.no_grad():
        interval = torch.full_like(b.t, config.finest / 2)
        none = replace(b.captions, dropped=torch.ones_like(b.captions.dropped))
        told, plain, now = (
            velocity(net, b.clean, x, b.t, b.after, captions, interval, sizes.history)
            for net, captions in ((teacher, b.captions), (teacher, none), (student, b.captions))
        )
    push, moved = told - plain, now - told
    assert float((push * moved).sum() / (push.norm() * moved.norm())) > 0.1


def test_distillation_keeps_to_dreamed_histories(
    latents: LatentDataset,
    phrases: PhraseTable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or what `own_history` taught about drift would be unlearnt."""
    config = DistillConfig(LoopConfig(steps=1, batch=2, warmup=1, seed=1))
    histories: list[Tensor] = []

    def watched(model: DiT, clean: Tensor, *rest: Any) -> Tensor:
        histories.append(clean)
        return velocity(model, clean, *rest)

    monkeypatch.setattr("magi_world.training.distill.velocity", watched)
    first = []
    for share in (0.0, 1.0):
        model = DiT(tiny_dit())
        start(model, 0)
        histories.clear()
        folder = tmp_path / str(share)
        folder.mkdir()
        own = replace(dynamics(), own_history=share)
        train_distill(config, own, model, latents, phrases, folder, CPU)
        first.append(histories[0])
    real, dreamt = first
    drawn = draw_batch(
        replace(dynamics(), loop=config.loop), latents, phrases, step_generator(1, 0), CPU
    )
    assert torch.equal(real, drawn.clean[:1]), "without it, the recording's own"
    assert not torch.isclose(dreamt, real).all((2, 3, 4, 5)).any(), "every chunk of it is dreamt"


def test_two_small_steps_span_one_large() -> None:
    steps = torch.tensor([[4.0, 8.0]])
    for shift in (3.0, 0.5):
        t0, tm, t1 = step_times(steps, torch.tensor([[0.5, 0.99]]), shift)
        four, eight, sixteen = (time_grid(n, "8,16,16", shift) for n in (4, 8, 16))
        expected = [[four[2], eight[7]], [eight[5], sixteen[15]], [four[3], eight[8]]]
        for made, want in zip((t0, tm, t1), expected, strict=True):
            torch.testing.assert_close(made[0], torch.tensor([float(w) for w in want]))


def test_starts_come_shortly_before_an_event(latents: LatentDataset) -> None:
    data = latents.data
    starts = pick_starts(latents, 2, 1, seed=0, before=0)
    assert starts.shape == (2, *latents.shape)
    found = []
    for z in starts:
        everything = latents.latents(torch.zeros(len(data)).long(), torch.arange(len(data)))
        row = int((everything - z).square().flatten(1).sum(1).argmin())
        found.append(int(data.episode[row]))
        assert bool((data.events[row + 1 : row + 1 + AHEAD, 0] > 0).any())
    assert len(set(found)) == 2
    many = pick_starts(latents, 10_000, 1, seed=0)
    rows, _ = latents.windows(1 + AHEAD)
    assert len(data.episode[rows].unique()) <= len(many) <= len(rows)
    with pytest.raises(ValueError, match="no episode has 50 chunks"):
        pick_starts(latents, 2, 50, seed=0)
