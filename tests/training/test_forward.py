"""The training forward gives what the stream gives, chunk by chunk."""

from __future__ import annotations

import itertools

import pytest
import torch
from toy import tiny_dit

from magi_world.config import SamplerConfig
from magi_world.model.attention import plain_attention
from magi_world.model.dit import DiT
from magi_world.sampling import schedule
from magi_world.sampling.stream import ChunkStream, StreamConfig
from magi_world.training.dynamics import mix, start
from magi_world.training.forward import Captions, history_index, velocity

STEPS, WIDTH, HISTORY = 4, 2, 2
SAMPLER = SamplerConfig(
    num_steps=STEPS,
    window_size=1,
    chunk_width=WIDTH,
    passes=1,
    distilled=True,
    kv_range=(HISTORY + 1,),
    clean_kv_range=1,
    solo_weight=0.0,
)


@pytest.fixture(scope="module", params=["as released", "recipe"])
def dit(request: pytest.FixtureRequest) -> DiT:
    recipe = {"prediction": "clean", "condition": "caption"}
    model = DiT(tiny_dit(**(recipe if request.param == "recipe" else {})))
    start(model, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)
    return model.eval()


def one(rows: torch.Tensor | None) -> Captions:
    """A batch of one noisy chunk with this caption, None = dropped."""
    features = torch.zeros(1, 8) if rows is None else rows
    mask = torch.ones(1, 1, len(features), dtype=torch.bool)
    return Captions(features[None, None], mask, torch.zeros(1, 1, dtype=torch.bool))


@torch.no_grad()
def test_sampling_with_it_equals_the_stream(dit: DiT) -> None:
    shape = (6, WIDTH, 4, 4)
    noise = {i: torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i in range(9)}
    stream = ChunkStream(dit, StreamConfig(SAMPLER, (4, 4)), lambda seed, i, shape: noise[i])
    past = torch.randn(1, 6, 2 * WIDTH, 4, 4, generator=torch.Generator().manual_seed(77))
    stream.reset([0], [0], past)
    clean = list(past.unflatten(2, (2, WIDTH)).transpose(1, 2)[0])
    grid = schedule.time_grid(STEPS, SAMPLER.shortcut_mode)
    generator = torch.Generator().manual_seed(2)
    for chunk in (2, 3, 4):  # the third one no longer sees the first clean chunk
        rows = torch.randn(3, 8, generator=generator)
        caption = stream.text_kv(rows)
        expected = stream.stage([0], [caption])
        assert expected is not None
        x = noise[chunk]
        for t, t_next in itertools.pairwise(grid):
            v = velocity(
                dit,
                torch.stack(clean)[None],
                x[None, None],
                t.view(1, 1).float(),
                torch.tensor([len(clean) - 1]),
                one(rows),
                torch.full((1, 1), STEPS / 2),
                HISTORY,
            )
            x = x + v[0, 0] * (t_next - t)
        torch.testing.assert_close(x, expected[0], rtol=1e-4, atol=1e-4)
        clean.append(x)


@torch.no_grad()
def test_targets_do_not_see_each_other_or_the_future(dit: DiT) -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(1, 5, 6, WIDTH, 4, 4, generator=generator)
    noisy = torch.randn(1, 3, 6, WIDTH, 4, 4, generator=generator)
    after = torch.tensor([-1, 1, 3])
    t = torch.tensor([[0.1, 0.5, 0.3]])
    captions = Captions(
        torch.randn(1, 3, 4, 8, generator=generator),
        torch.tensor([[[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]]).bool(),
        torch.tensor([[False, False, True]]),
    )
    interval = torch.full((1, 3), 2.0)

    def run(c: torch.Tensor, n: torch.Tensor, caps: Captions = captions) -> torch.Tensor:
        return velocity(dit, c, n, t, after, caps, interval, HISTORY)

    base = run(clean, noisy)
    other = noisy.clone()
    other[:, 0] += 1
    assert torch.equal(run(clean, other)[:, 1:], base[:, 1:])
    changed = clean.clone()
    changed[:, 2] += 1  # seen by the third target only: the first has no history at all
    result = run(changed, noisy)
    assert torch.equal(result[:, :2], base[:, :2])
    assert not torch.allclose(result[:, 2], base[:, 2], atol=1e-3)
    unseen = clean.clone()
    unseen[:, 4] += 1
    assert torch.equal(run(unseen, noisy), base)
    masked = captions.rows.clone()
    masked[0, 1, 1:] = 9  # behind the mask
    masked[0, 2] = 9  # a dropped caption
    again = run(clean, noisy, Captions(masked, captions.mask, captions.dropped))
    assert torch.equal(again, base)


def test_history_index_is_clamped_and_marked() -> None:
    index, real = history_index(torch.tensor([-1, 0, 3]), 2)
    assert index.tolist() == [[0, 0], [0, 0], [2, 3]]
    assert real.tolist() == [[False, False], [False, True], [True, True]]


def test_attend_is_attention_with_groups() -> None:
    generator = torch.Generator().manual_seed(3)
    q = torch.randn(2, 5, 4, 8, generator=generator)
    k, v = torch.randn(2, 2, 7, 2, 8, generator=generator).unbind(0)
    expected = torch.nn.functional.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.repeat_interleave(2, 2).transpose(1, 2),
        v.repeat_interleave(2, 2).transpose(1, 2),
    ).transpose(1, 2)
    torch.testing.assert_close(plain_attention(q, k, v), expected)


def test_times_are_the_samplers() -> None:
    for steps, shift in ((4, 3.0), (8, 3.0), (16, 3.0), (4, 0.5)):
        s = torch.arange(steps + 1) / steps
        grid = schedule.time_grid(steps, "8,16,16", shift)
        torch.testing.assert_close(schedule.time_at(s, shift), grid, rtol=0, atol=1e-6)
    clean, noise = torch.ones(1, 1, 1, 1, 1, 1), torch.zeros(1, 1, 1, 1, 1, 1)
    assert mix(clean, noise, torch.tensor([[0.25]])).item() == 0.25
