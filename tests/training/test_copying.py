"""A transformer that starts as a copy of the chunk before."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from magi_world.config import DiTConfig
from magi_world.model.dit import DiT
from magi_world.training.copying import (
    Shifts,
    best_shift,
    changed,
    channels_for,
    check_room,
    copies_fit,
    fit_output,
    share_that_stays,
    shifted,
    start_copying,
)
from magi_world.training.dynamics import DynamicsConfig, start
from magi_world.training.forward import Captions, velocity
from magi_world.training.loop import LoopConfig
from tests.training.toy import tiny_dit

CLIPS, CHUNKS = 6, 5


def sizes(**changes: object) -> DiTConfig:
    room = {"hidden": 96, "heads": 3, "kv_groups": 3, "head_dim": 32, "layers": 3, "patch": 1}
    recipe = {"prediction": "clean", "condition": "caption"}
    return tiny_dit(**(room | recipe | changes))


def clips(width: int, seed: int) -> Tensor:
    """Clips (B, n, C, W, 6, 8) whose cells have nothing to do with each other."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.rand(CLIPS, CHUNKS, 1, 1, 6, 8, generator=generator) + 0.5
    return size * torch.randn(CLIPS, CHUNKS, 6, width, 6, 8, generator=generator)


def caption(word: int) -> Tensor:
    """Features (1, 8) of a caption of one word."""
    return 2.0 * torch.nn.functional.one_hot(torch.tensor([word]), 8).float()


def predicted(model: DiT, clean: Tensor, word: int = 0) -> Tensor:
    """The clean latents (B, n - 1, ...) that the model sees behind pure noise."""
    n = CHUNKS - 1
    told = Captions(
        caption(word).expand(CLIPS, n, 1, 8),
        torch.ones(CLIPS, n, 1, dtype=torch.bool),
        torch.zeros(CLIPS, n, dtype=torch.bool),
    )
    noise = torch.randn(clean[:, 1:].shape, generator=torch.Generator().manual_seed(5))
    t = torch.zeros(CLIPS, n)
    after = torch.arange(n)
    return noise + velocity(model, clean, noise, t, after, told, history=4)


# Three words: stay, what is seen goes two cells to the right, it goes one cell up.
SHIFTS = Shifts(
    torch.stack([caption(i) for i in range(3)]),
    torch.ones(3, 1, dtype=torch.bool),
    torch.tensor([[0.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]),
    torch.ones(3, 6),
    torch.ones(3, 6),
    torch.ones(6),
    (6, 8),
)


def copying(width: int, shifts: Shifts = SHIFTS, stands: bool = False) -> DiT:
    """A model begun as a copy, its output fitted on clips of its own, as loud as the shifts say.

    stands: in these clips nothing moves, whatever the words say.
    """
    model = DiT(sizes())
    start(model, 0)
    start_copying(model, width, shifts)
    seen: list[Tensor] = []
    norm = model.videodit_blocks.final_layernorm
    hook = norm.register_forward_hook(lambda _, __, out: seen.append(out[:, CHUNKS:]))
    clean = clips(width, 1) * shifts.spread[:, None, None, None]
    came = []
    with torch.no_grad():
        for word, cells in enumerate(shifts.cells.int().tolist()):
            predicted(model, clean, word)
            moved = shifted(clean[:, :-1], *([0, 0] if stands else cells))
            came.append(moved * shifts.stays[word][:, None, None, None])
    hook.remove()
    fit_output(model, torch.cat(seen).flatten(0, 1), torch.cat(came).flatten(0, 1), torch.ones(72))
    return model


@pytest.mark.parametrize("width", [1, 2])
@torch.no_grad()
def test_what_comes_next_is_what_was(width: int) -> None:
    model, clean = copying(width), clips(width, 2)
    made = predicted(model, clean)
    lost = (made - clean[:, :-1]).square().mean() / clean.square().mean()
    assert lost < 0.1
    other = clean.clone()  # the chunks before the last one hardly count
    other[:, :-2] = clips(width, 3)[:, :-2]
    moved = (predicted(model, other)[:, -1] - made[:, -1]).square().mean()
    assert moved < 0.1 * clean.square().mean()


@pytest.mark.parametrize(("word", "down", "right"), [(1, 0, 2), (2, -1, 0)])
@torch.no_grad()
def test_what_comes_next_is_shifted_as_the_caption_says(word: int, down: int, right: int) -> None:
    model, clean = copying(1), clips(1, 2)
    made = predicted(model, clean, word)
    wanted = clean[:, :-1].roll((down, right), (-2, -1))
    inside = (..., slice(1, 5), slice(2, 8))  # what is not rolled in from the other side
    lost = (made - wanted)[inside].square().mean() / wanted.square().mean()
    stayed = (made - clean[:, :-1])[inside].square().mean() / wanted.square().mean()
    assert lost < 0.15
    assert stayed > 1


@torch.no_grad()
def test_what_stands_still_whatever_is_said_is_there_as_well() -> None:
    model, clean = copying(1, stands=True), clips(1, 2)
    for word in range(3):
        lost = (predicted(model, clean, word) - clean[:, :-1]).square().mean()
        assert lost < 0.15 * clean.square().mean()
    assert channels_for(6, 2) == 47
    assert [copies_fit(sizes(hidden=h)) for h in (36, 44, 48)] == [0, 1, 2]
    assert copies_fit(sizes(heads=1, kv_groups=1)) == 1


@torch.no_grad()
def test_what_does_not_stay_under_a_command_is_not_copied() -> None:
    stays = torch.ones(3, 6)
    stays[1, :3] = 0.0  # under the second word half of the numbers are not found again
    model, clean = copying(1, replace(SHIFTS, stays=stays)), clips(1, 2)
    moved = predicted(model, clean, 1)[..., 2:]
    true = shifted(clean[:, :-1], 0, 2)[..., 2:]
    assert moved[:, :, :3].square().mean() < 0.1 * true.square().mean()
    assert (moved - true)[:, :, 3:].square().mean() < 0.15 * true.square().mean()
    stayed = predicted(model, clean, 0) - clean[:, :-1]
    assert stayed[:, :, :3].square().mean() < 0.15 * clean.square().mean()


@torch.no_grad()
def test_loud_and_faint_numbers_are_copied_alike() -> None:
    spread = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.25])
    loud = spread[:, None, None, None]
    model = copying(1, replace(SHIFTS, spread=spread))
    clean = clips(1, 2) * loud
    lost = (predicted(model, clean) - clean[:, :-1]).square().mean((0, 1, 3, 4, 5))
    assert (lost / clean.square().mean((0, 1, 3, 4, 5))).max() < 0.2


def test_how_much_stays() -> None:
    before = clips(1, 6).flatten(0, 1)
    share = torch.tensor([1.0, 0.5, 0.0, -1.0, 2.0, 0.1])
    found = share_that_stays(before, before * share[:, None, None, None])
    torch.testing.assert_close(found, share)


def test_the_best_shift_is_found() -> None:
    before = clips(1, 6).flatten(0, 1)
    now = before.roll((1, -2), (-2, -1)) + 0.1
    assert best_shift(before, now, torch.ones(6), 3) == (1, -2)
    assert best_shift(before, now, torch.ones(6), 1) != (1, -2)
    assert best_shift(before, before, torch.ones(6), 3) == (0, 0)
    # A walk below a frame that stands, twice as loud as what moves.
    before[..., 4:, :] *= 2
    now = before.clone()
    now[..., :4, :] = before[..., :4, :].roll(2, -1)
    assert best_shift(before, now, torch.ones(6), 3) == (0, 0)
    assert best_shift(before, now, torch.ones(6), 3, beside=True) == (0, 2)
    # What changes without moving is no shift.
    other = clips(1, 7).flatten(0, 1)
    assert best_shift(before, other, torch.ones(6), 3, beside=True) == (0, 0)


def test_a_command_shows_what_it_does_where_nothing_is_in_its_way() -> None:
    before = clips(1, 6).flatten(0, 1)
    now = before.clone()
    now[::2] += 0.1
    assert torch.equal(changed(before, now, torch.ones(6)), torch.arange(len(now)) % 2 == 0)


@torch.no_grad()
def test_without_it_nothing_is_known() -> None:
    model, clean = DiT(sizes()), clips(1, 2)
    start(model, 0)
    made = predicted(model, clean)
    assert (made - clean[:, :-1]).square().mean() > 0.9 * clean.square().mean()


def test_it_learns_from_there() -> None:
    model, clean = copying(1), clips(1, 4)
    goal = -clean[:, :-1]
    rate = torch.optim.Adam(model.parameters(), lr=3e-3)
    errors = []
    for _ in range(25):
        error = (predicted(model, clean) - goal).square().mean()
        rate.zero_grad()
        error.backward()
        rate.step()
        errors.append(error.item())
    assert errors[-1] < 0.3 * errors[0]


def test_the_output_reads_patches_in_order() -> None:
    model = DiT(sizes(patch=2, hidden=128, latent_channels=6))
    start(model, 0)
    wanted = torch.randn(24, model.config.hidden, generator=torch.Generator().manual_seed(0))
    tokens = torch.randn(9, 12, model.config.hidden, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.final_linear.linear.weight.copy_(wanted)
        shown = model.head(tokens[:, None], 3, 4)[:, 0]
        features = model.videodit_blocks.final_layernorm(tokens)
        model.final_linear.linear.weight.zero_()
        fit_output(model, features, shown, torch.ones(9), ridge=1e-6)
        found = model.head(tokens[:, None], 3, 4)[:, 0]
    torch.testing.assert_close(found, shown, rtol=0.05, atol=0.05)


def test_where_there_is_no_room() -> None:
    check_room(sizes())
    with pytest.raises(ValueError, match=r"hidden 8 < 40.*a token has 6 numbers"):
        check_room(sizes(hidden=8))
    with pytest.raises(ValueError, match="head_dim 16 < 24"):
        check_room(sizes(head_dim=16))
    with pytest.raises(ValueError, match="layers 1 < 2"):
        DynamicsConfig(sizes(layers=1), LoopConfig(1, 1), copy_start=True)
    DynamicsConfig(sizes(layers=1), LoopConfig(1, 1))
    with pytest.raises(ValueError, match="kv_groups 1 is not heads 3"):
        check_room(sizes(kv_groups=1))
