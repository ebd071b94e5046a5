"""What a card must hold, said before it holds anything, and what is said when it is full."""

from __future__ import annotations

import pytest
import torch

from magi_world.io.released import preset
from magi_world.memory import GIB, CardFullError, check_card, plan_memory, what_needs_less
from magi_world.model.tiling import TileConfig
from magi_world.world.world import World
from tests.tiny import tiny_parts

T5 = 4_762_310_656 * 2  # bytes of the XXL encoder in bfloat16


def test_weights_and_history_are_counted_exactly() -> None:
    parts = tiny_parts()
    plan = plan_memory(parts.config, num_worlds=3, proj=torch.float32)
    assert plan.transformer == sum(p.nbytes for p in parts.dit.parameters())
    assert plan.autoencoder == sum(p.nbytes for p in parts.vae.parameters())
    assert plan.history == World(parts, 3).cache_bytes


def test_the_largest_model_fits_a_card_with_room_to_decode() -> None:
    config = preset("magi-1-24b-distill-fp8").with_options(num_steps=8, window_size=1)
    tile = TileConfig(length=12)
    plan = plan_memory(config, text=T5, tile=tile, offload="all")
    assert 24 * GIB < plan.transformer < 26 * GIB
    assert plan.total < 75 * GIB
    there = plan_memory(config, text=T5, tile=tile)
    assert there.kept - plan.kept == plan.text + plan.autoencoder
    assert "while it is used" in str(plan)
    assert "while it is used" not in str(there)


def test_what_cannot_fit_is_refused_with_what_would() -> None:
    config = preset("magi-1-24b-base")
    plan = plan_memory(config, num_worlds=4, text=T5)
    advice = what_needs_less(True, 4, None, True, False, config.sampler.window_size)
    with pytest.raises(CardFullError, match=r"24b-base needs .* the card has 80.0 GiB") as raised:
        check_card(plan, 80 * GIB, config.name, advice)
    for option in ("offload='text'", "num_worlds below 4", "window_size=1", "fp8", "frame_size"):
        assert option in str(raised.value)
    later = what_needs_less(True, 1, "all", False, True, 1)
    assert not any(word in later for word in ("offload", "num_worlds", "window_size", "fp8"))


def test_a_full_card_is_one_clear_error_and_the_world_is_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(tiny_parts(num_steps=2))
    world.reset(seed=0)
    state = world.snapshot()
    expected = world.step("turn left").latents
    world.restore(state)

    def full(*given: object, **more: object) -> torch.Tensor:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."
        )

    with monkeypatch.context() as patched:
        patched.setattr(world.parts.dit, "forward", full)
        with pytest.raises(CardFullError, match=r"tiny \(Tried to allocate 2.00 GiB\); fewer"):
            world.step("turn left")
    assert torch.equal(world.step("turn left").latents, expected)
