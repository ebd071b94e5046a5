"""A history of any length: the same as plain attention, in constant memory, wherever it lies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from magi_world.model.attention import attention, attention_with_lse
from magi_world.sampling.kv_cache import CacheConfig, KeyValueCache
from magi_world.sampling.long_history import HistoryPlan, LongCache, Merged, make_place
from magi_world.sampling.segments import Host
from magi_world.world.snapshot import Snapshot
from magi_world.world.world import World
from tests.tiny import tiny_parts

COMMANDS = ["turn left", "walk forward", "turn right", "stand still"] * 3


def long_world(history: int, sink: int, where: str | Path | None, near: int = 2) -> World:
    """A tiny world that sees ``history`` chunks."""
    parts = tiny_parts(num_steps=2)
    config = parts.config.with_options(history=history, sink=sink)
    plan = HistoryPlan(sink, make_place(where), near)
    return World(replace(parts, config=config, make_cache=plan.make), 2)


def plain_world(history: int) -> World:
    """The same with one contiguous cache."""
    parts = tiny_parts(num_steps=2)
    return World(replace(parts, config=parts.config.with_options(history=history)), 2)


def test_parts_of_the_keys_merge_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, h, 16, generator=generator) for n, h in ((5, 4), (90, 2), (90, 2)))
    for backend in ("sdpa", "reference"):
        merged = Merged(*attention_with_lse(q, k[:, :30], v[:, :30], backend))
        merged.add(*attention_with_lse(q, k[:, 30:37], v[:, 30:37], backend))
        merged.add(*attention_with_lse(q, k[:, 37:], v[:, 37:], backend))
        torch.testing.assert_close(merged.out, attention(q, k, v))


@pytest.mark.parametrize("where", ["card", "host", "file"])
def test_a_rolling_window_in_segments_is_that_of_one_buffer(where: str, tmp_path: Path) -> None:
    place = tmp_path if where == "file" else where
    plain, long = plain_world(6), long_world(6, 0, place)
    for world in (plain, long):
        world.reset(seed=1)
    for index, command in enumerate(COMMANDS):
        expected, got = plain.step(command).latents, long.step(command).latents
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
        if index == 4:
            for world in (plain, long):
                world.reset(seed=5, worlds=[1])


def test_the_sink_stays_and_the_middle_goes() -> None:
    """Against the formula: sink, window and own chunk, for every moment of a stream."""
    config = CacheConfig(2, 1, 5, 1, 3, 2, 8, torch.float32, torch.device("cpu"))
    cache = LongCache(config, HistoryPlan(2, Host(), near=1))
    generator = torch.Generator().manual_seed(0)
    chunks = torch.randn(9, 2, 2, 1, 1, 3, 2, 8, generator=generator)  # chunk, k or v, layer
    q = torch.randn(1, 1, 3, 4, 8, generator=generator)
    for index in range(9):
        seen = list(range(index)) if index <= 5 else [0, 1, index - 3, index - 2, index - 1]
        reads = cache.reads([0], 5, [6], "sdpa")
        for layer in range(2):
            reads.write(layer, *chunks[index, :, layer])
            keys, values = (
                torch.cat([chunks[i, part, layer, :, 0] for i in [*seen, index]], dim=1)
                for part in (0, 1)
            )
            expected = attention(q[:, 0], keys, values)
            torch.testing.assert_close(reads.read(layer, q)[:, 0], expected)
        cache.push([0])
        clean = cache.reads([0], 4, [1], "sdpa")
        for layer in range(2):
            clean.write(layer, *chunks[index, :, layer])
    assert cache.filled == [5]


def test_a_chunk_that_sees_itself_alone_sees_no_sink() -> None:
    config = CacheConfig(1, 1, 4, 1, 2, 1, 8, torch.float32, torch.device("cpu"))
    cache = LongCache(config, HistoryPlan(2, Host(), near=1))
    for _ in range(6):
        cache.push([0])
    k, v, q = torch.randn(3, 1, 1, 2, 1, 8)
    reads = cache.reads([0], 4, [1], "sdpa")
    reads.write(0, k, v)
    torch.testing.assert_close(reads.read(0, q)[:, 0], attention(q[:, 0], k[:, 0], v[:, 0]))


def test_forks_share_segments_and_go_their_own_ways(tmp_path: Path) -> None:
    world = long_world(5, 1, tmp_path)
    world.reset(seed=1)
    for command in COMMANDS[:7]:
        world.step(command)
    before = world.snapshot()
    left, right = world.fork(2)
    seen = {}
    for name, one in (("left", left), ("right", right), ("on", world)):
        for command in COMMANDS[:4]:
            seen[name] = one.step("turn left" if name != "right" else command).latents
    assert torch.equal(seen["left"], seen["on"])
    assert not torch.equal(seen["left"], seen["right"])
    world.restore(before)
    for _ in range(4):
        again = world.step("turn left").latents
    assert torch.equal(again, seen["left"])


def test_a_snapshot_file_goes_from_one_place_to_another(tmp_path: Path) -> None:
    world = long_world(5, 1, tmp_path)
    world.reset(seed=1)
    for command in COMMANDS[:7]:
        world.step(command)
    world.snapshot().save(tmp_path / "state")
    expected = [world.step(command).latents for command in COMMANDS[:4]]
    other = long_world(5, 1, "host")
    other.restore(Snapshot.load(tmp_path / "state"))
    for command, latents in zip(COMMANDS, expected, strict=False):
        torch.testing.assert_close(other.step(command).latents, latents, rtol=1e-4, atol=1e-4)


def test_memory_is_constant_and_what_is_dropped_is_used_again(tmp_path: Path) -> None:
    config = CacheConfig(1, 1, 8, 1, 4, 1, 8, torch.float32, torch.device("cpu"))
    place = make_place(tmp_path)
    cache = LongCache(config, HistoryPlan(1, place, near=1))
    sizes = []
    for _ in range(60):
        cache.push([0])
        sizes.append(place._slots)  # type: ignore[attr-defined]
    assert sizes[-1] == sizes[20]
    assert cache.filled == [8]


def test_a_history_that_does_not_fit_is_refused_before_it_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("magi_world.sampling.segments.host_bytes", lambda: 10_000)
    config = CacheConfig(2, 1, 1000, 1, 4, 1, 8, torch.float32, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"4,000 tokens\) of 1 worlds needs .* history=23 fits"):
        LongCache(config, HistoryPlan(0, Host()))
    LongCache(replace(config, history=23), HistoryPlan(0, Host()))


def test_options_are_checked(tmp_path: Path) -> None:
    config = tiny_parts().config
    assert config.with_options(history=8).sampler.kv_range == (9, 8)
    assert config.with_options(history=1).sampler.kv_range == (2, 1)
    for bad in (0, -1, 2.5, True, "many"):
        with pytest.raises(ValueError, match="history is"):
            config.with_options(history=bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sink is 9; with kv_range"):
        config.with_options(history=8, sink=9)
    with pytest.raises(ValueError, match="there is no such folder"):
        make_place(tmp_path / "nowhere")


def test_a_short_history_is_the_same_bits_as_before() -> None:
    plain, long = plain_world(2), long_world(2, 0, None, near=4)
    for world in (plain, long):
        world.reset(seed=1)
    for command in COMMANDS[:4]:
        assert torch.equal(plain.step(command).latents, long.step(command).latents)
    assert isinstance(plain._stream.cache, KeyValueCache)
    assert isinstance(long._stream.cache, LongCache)
