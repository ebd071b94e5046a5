"""The endless stream: what it computes, what it does not, and that it never grows."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from dataclasses import replace

import pytest
import torch

from magi_world.config import SamplerConfig
from magi_world.model.dit import DiT, Pass
from magi_world.sampling.kv_cache import CacheReads
from magi_world.sampling.stream import ChunkStream, StreamConfig
from tests.alike import assert_alike
from tests.tiny import HashText, tiny_dit, tiny_parts

SIZE = (4, 6)


def make(num_worlds: int = 1, **options: object) -> ChunkStream:
    sampler = SamplerConfig(
        **{
            "num_steps": 4,
            "window_size": 2,
            "chunk_width": 2,
            "passes": 1,
            "distilled": True,
            "kv_range": (3, 2),
            **options,
        }
    )
    dit = tiny_dit(tiny_parts().config.dit)
    stream = ChunkStream(dit, StreamConfig(sampler, SIZE, num_worlds))
    stream.reset(range(num_worlds), list(range(num_worlds)), None)
    return stream


def prefix(frames: int, worlds: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(frames)
    return torch.randn(worlds, 8, frames, *SIZE, generator=generator)


class Counting:
    """Counts what a stream asks its transformer for."""

    def __init__(self, dit: DiT, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: Counter[str] = Counter()
        self.chunks: list[int] = []
        for name in ("forward", "text_keys"):
            monkeypatch.setattr(dit, name, self.wrap(name, getattr(dit, name)))

    def wrap(self, name: str, method):
        def call(*args: object) -> object:
            given = args[-1]
            what = "keys_only" if isinstance(given, Pass) and given.keys_only else name
            self.calls[what] += 1
            if what == "forward":
                self.chunks.append(args[0].shape[1])
            return method(*args)

        return call


def test_one_pass_runs_each_thing_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = make(solo_weight=0.0)
    count = Counting(stream.dit, monkeypatch)
    caption = stream.text_kv(HashText().encode("turn left"))
    for _ in range(6):
        stream.stage([0], [caption])
    # 6 stages of 2 steps; clean keys once for each of the 4 chunks that were continued; text once.
    assert count.calls == {"forward": 12, "keys_only": 4, "text_keys": 1}


def test_zero_weight_passes_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = make(passes=3, distilled=False, num_steps=8, window_size=1, kv_range=(3,))
    count = Counting(stream.dit, monkeypatch)
    stream.stage([0], [stream.text_kv(HashText().encode("go"))])
    # t of the 8 steps: 0, .005, .021, .051, .1, .176 need three passes; 0.3 and .487 one.
    assert count.calls["forward"] == 6 * 3 + 2 * 1


def test_text_pass_stops_at_the_newest_chunk_that_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = make(
        passes=3,
        distilled=False,
        num_steps=8,
        window_size=4,
        guidance_t=(0.0, 0.05),
        prev_scales=(1.0, 1.5),
        text_scales=(1.0, 7.5),
    )
    caption = stream.text_kv(HashText().encode("go"))
    for _ in range(4):
        stream.stage([0], [caption])
    count = Counting(stream.dit, monkeypatch)
    stream.stage([0], [caption])
    # The two newest chunks have weights (0, 0, 1): no pass without captions for them.
    assert max(count.chunks) == 4
    assert 4 not in count.chunks[1::3]


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("frames", [0, 1, 2, 3, 5, 9])
def test_any_prefix_length(passes: int, frames: int) -> None:
    stream = make(passes=passes, distilled=passes == 1)
    stream.reset([0], [0], prefix(frames) if frames else None)
    caption = stream.text_kv(HashText().encode("go"))
    out = [stream.stage([0], [caption]) for _ in range(4)]
    assert [o is None for o in out] == [True, False, False, False]
    assert all(torch.isfinite(o).all() for o in out if o is not None)
    assert stream.rows[0].window.first == frames // 2 + 3


def test_prefix_matters_and_old_prefix_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """With clean chunks that see only themselves, only what stays in the cache counts."""
    long, stream = prefix(12), make()
    caption = stream.text_kv(HashText().encode("go"))

    def first(x: torch.Tensor) -> torch.Tensor:
        stream.reset([0], [0], x)
        stream.stage([0], [caption])
        return stream.stage([0], [caption])

    base = first(long)
    changed_new, changed_old = long.clone(), long.clone()
    changed_new[:, :, -1] += 1
    changed_old[:, :, 0] += 1
    assert not torch.equal(base, first(changed_new))
    assert torch.equal(base, first(changed_old))
    count = Counting(stream.dit, monkeypatch)
    first(long)
    assert count.calls["keys_only"] == 2 + 1 - 1  # two cached prefix chunks, none run again


def test_drain_emits_what_is_in_flight() -> None:
    fed, drained = make(), make()
    captions = [fed.text_kv(HashText().encode("go"))]
    want = [fed.stage([0], captions) for _ in range(4)]
    got = [drained.stage([0], [drained.text_kv(HashText().encode("go"))]) for _ in range(3)]
    got.append(drained.stage([0], None))
    assert torch.equal(got[2], want[2])
    assert got[3].shape == want[3].shape
    assert drained.rows[0].window.count == 0
    with pytest.raises(ValueError, match="no chunk in flight"):
        drained.stage([0], None)


def test_admitting_while_draining_is_refused() -> None:
    stream = make(num_steps=8, window_size=4, kv_range=(2,))
    caption = stream.text_kv(HashText().encode("go"))
    for _ in range(4):
        stream.stage([0], [caption])
    stream.stage([0], None)
    with pytest.raises(ValueError, match="being drained"):
        stream.stage([0], [caption])
    while stream.rows[0].window.count:
        assert stream.stage([0], None) is not None


def test_worlds_of_different_age_cannot_share_a_stage() -> None:
    stream = make(2)
    captions = [stream.text_kv(HashText().encode("go"))] * 2
    stream.stage([0], captions[:1])
    with pytest.raises(ValueError, match="different points"):
        stream.stage([0, 1], captions)


@pytest.mark.parametrize("window", [1, 2, 4])
@pytest.mark.parametrize("passes", [1, 3])
def test_batch_gives_each_world_what_it_gets_alone(window: int, passes: int) -> None:
    options = {"window_size": window, "passes": passes, "distilled": passes == 1}
    worlds = make(3, **options)
    text = HashText()
    words = ["go", "turn left", "go"]
    together = []
    for _ in range(window + 3):
        out = worlds.stage(range(3), [worlds.text_kv(text.encode(w)) for w in words])
        together.append(out)
    for i, word in enumerate(words):
        alone = make(**options)
        alone.reset([0], [i], None)
        for out in together:
            own = alone.stage([0], [alone.text_kv(text.encode(word))])
            assert (own is None) == (out is None)
            if out is not None:
                assert_alike(own[0], out[i])


def test_interrupted_stage_changes_nothing() -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 1:
            raise Stop

    stream, twin = make(), make()
    captions = [stream.text_kv(HashText().encode("go"))]
    for _ in range(3):
        stream.stage([0], captions)
        twin.stage([0], captions)
    with pytest.raises(Stop):
        stream.stage([0], captions, stop)
    for _ in range(3):
        assert torch.equal(stream.stage([0], captions), twin.stage([0], captions))


def test_caption_of_the_wrong_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 5\); expected \(L, 16\)"):
        make().text_kv(torch.zeros(3, 5))


def test_prefix_of_the_wrong_shape_is_refused() -> None:
    stream = make()
    with pytest.raises(ValueError, match="prefix has shape"):
        stream.reset([0], [0], torch.zeros(1, 8, 2, 4, 5))


def test_no_masks_and_no_copies_of_keys() -> None:
    """A single world reads its keys in place, whatever its range."""
    stream = make(kv_range=(3,))
    reads = CacheReads(stream.cache, [0], 2, [3, 3], "sdpa")
    for runs in reads.reads:
        (run,) = runs
        view = stream.cache.k[0][reads.rows, run.start : run.stop].flatten(1, 2)
        assert view.untyped_storage().data_ptr() == stream.cache.k.untyped_storage().data_ptr()


@pytest.mark.slow
def test_two_thousand_chunks_in_flat_memory() -> None:
    stream = make(num_steps=2, window_size=1, kv_range=(3, 2))
    caption = stream.text_kv(HashText().encode("go"))
    storage = stream.cache.k.untyped_storage().data_ptr()
    counts = []
    for i in range(2000):
        out = stream.stage([0], [caption])
        if i in (200, 1999):
            gc.collect()
            tensors = sum(isinstance(o, torch.Tensor) for o in gc.get_objects())
            counts.append((tensors, sys.getallocatedblocks()))
    assert torch.isfinite(out).all()
    assert stream.rows[0].window.first == 2000
    assert stream.cache.k.untyped_storage().data_ptr() == storage
    # One object kept for each chunk would be 1,799 more of them.
    assert counts[1][0] - counts[0][0] < 50
    assert counts[1][1] - counts[0][1] < 1000


@pytest.mark.parametrize("condition", ["null", "caption"])
def test_gates_are_made_once_a_prompt(condition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = tiny_parts(num_steps=2)
    dit = tiny_dit(replace(parts.config.dit, condition=condition))
    stream = ChunkStream(dit, StreamConfig(parts.config.sampler, parts.config.latent_size))
    made = []
    gates = dit.gates
    monkeypatch.setattr(dit, "gates", lambda *given: made.append(given) or gates(*given))
    stream.reset([0], [0], None)
    first, second = (stream.text_kv(torch.randn(3, 16)) for _ in range(2))
    counts = []
    for caption in (first, first, first, second, second):
        stream.stage([0], [caption])
        counts.append(len(made))
    # Two steps, and from the second chunk on the keys of the one before.
    new = 2 if condition == "caption" else 0
    assert counts == [2, 3, 3, 3 + new, 3 + new]
