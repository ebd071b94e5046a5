"""Times, key ranges and guidance at their edges; noise and pipelines."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from magi_world.config import SamplerConfig
from magi_world.sampling import schedule
from magi_world.sampling.denoise import DenoisingWindow, plan_step, seeded_noise


@pytest.mark.parametrize("shift", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 12, 16, 32, 64])
def test_grid_runs_from_noise_to_clean(steps: int, shift: float) -> None:
    grid = schedule.time_grid(steps, "8,16,16", shift)
    assert len(grid) == steps + 1
    assert grid[0] == 0
    assert grid[-1] == 1
    assert (grid.diff() > 0).all()


def test_a_small_shift_spends_its_steps_on_details() -> None:
    config = SamplerConfig(num_steps=4, window_size=1, passes=1, kv_range=(5,), shift=0.5)
    expected = [0.0, 2 / 17, 0.4, 18 / 25, 1.0]
    assert schedule.times(4, "8,16,16", 0.5) == pytest.approx(expected)
    plans = [plan_step(config, [0], step, torch.device("cpu")) for step in range(4)]
    assert [p.times[0] for p in plans] == pytest.approx(expected[:-1])
    assert torch.stack([p.t[0, 0] for p in plans]).tolist() == pytest.approx(expected[:-1])
    assert sum(float(p.dt) for p in plans) == pytest.approx(1)


def test_guidance_sums_to_one_and_includes_left_edges() -> None:
    config = SamplerConfig()
    for t in (0.0, 0.01, 0.0217, 0.0999, 0.1, 0.2, 0.3, 0.9, 0.9999):
        assert sum(schedule.guidance(config, t)) == pytest.approx(1)
    assert schedule.guidance(config, 0.3 - 1e-6) == pytest.approx((-0.5, -6.0, 7.5))
    assert schedule.guidance(config, 0.3 - 5e-8) == (0.0, 1.0, 0)
    assert schedule.guidance(config, 0.3) == (0.0, 1.0, 0)


def test_noisier_chunks_look_further_back() -> None:
    config = SamplerConfig(num_steps=64)
    ranges = [schedule.key_range(config, s) for s in range(64)]
    assert ranges == [5] * 16 + [4] * 16 + [3] * 16 + [2] * 16


def test_second_time_embedding() -> None:
    base = SamplerConfig(num_steps=8)
    assert schedule.step_embedding(base, 0) is None
    eight = SamplerConfig(num_steps=8, passes=1, distilled=True)
    assert schedule.step_embedding(eight, 1) == 4
    twelve = SamplerConfig(num_steps=12, passes=1, distilled=True)
    assert [schedule.step_embedding(twelve, i) for i in range(3)] == [4, 8, 8]


@given(window=st.integers(1, 6), chunks=st.integers(1, 12))
def test_every_chunk_takes_window_stages_and_lands_in_order(window: int, chunks: int) -> None:
    state, landed, stages = DenoisingWindow(), [], 0
    while state.end < chunks or state.count:
        if state.end < chunks:
            state = state.admit()
        assert state.count <= window
        assert max(state.stages()) < window
        first = state.first
        state, out = state.advance(window)
        landed += [first] * out
        stages += 1
    assert landed == list(range(chunks))
    assert stages == chunks + window - 1


def test_noise_is_a_function_of_seed_and_chunk() -> None:
    a, b = seeded_noise(3, 5, (4, 100)), seeded_noise(3, 5, (4, 100))
    assert torch.equal(a, b)
    for other in (seeded_noise(4, 5, (4, 100)), seeded_noise(3, 6, (4, 100))):
        assert abs(torch.corrcoef(torch.stack([a.flatten(), other.flatten()]))[0, 1]) < 0.2
    assert abs(a.mean()) < 0.2
    assert abs(a.std() - 1) < 0.1
