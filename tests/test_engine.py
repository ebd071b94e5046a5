"""The layout for speed: every switch gives the reference numbers, and compiles once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields, replace

import pytest
import torch
import torch._dynamo
from torch._dynamo.utils import counters

import tests.reference.forward as forward
from magi_world.engine import EngineConfig, prepare_dit, prepare_parts, slow_parts
from magi_world.io.safetensors_io import load_tensors
from magi_world.model.dit import DiT
from magi_world.model.tiling import TileConfig
from magi_world.model.vae import Decoder
from magi_world.sampling.stream import ChunkStream, StreamConfig
from magi_world.world.parts import SideStream
from magi_world.world.world import World
from tests.checkpoints import GOLDEN, golden_case
from tests.fake_cuda import cuda_parts, fake_cuda
from tests.test_reference import tolerance
from tests.tiny import tiny_parts

SWITCHES = [field.name for field in fields(EngineConfig)]
CASES = ("forward_gelu", "forward_swiglu_24b_like", "forward_bf16", "forward_fp8")


@pytest.fixture(autouse=True)
def forget_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("case_name", CASES)
@pytest.mark.parametrize("switch", SWITCHES)
def test_reference_holds_with_each(
    switch: str, case_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, prepared = forward.load_reference_dit, []

    def load_prepared(*arguments: object) -> DiT:
        prepared.append(prepare_dit(load(*arguments), EngineConfig(**{switch: True}), "eager"))
        return prepared[-1]

    monkeypatch.setattr(forward, "load_reference_dit", load_prepared)
    case = golden_case(case_name)
    errors = forward.check_forward(case, load_tensors(GOLDEN / f"{case_name}.safetensors"), GOLDEN)
    assert len(prepared) == 1
    assert max(errors.values()) <= tolerance(case), errors


def test_columns_and_products_are_really_changed() -> None:
    parts = tiny_parts()
    before = parts.dit.blocks[0].self_attention.linear_proj.weight.clone()
    dit = prepare_dit(parts.dit, EngineConfig(permute_proj=True, fuse_qkv=True))
    attention = dit.blocks[0].self_attention
    assert not torch.equal(attention.linear_proj.weight, before)
    assert attention.linear_proj.weight.sort().values.equal(before.sort().values)
    assert [n for n, _ in attention.linear_qkv.named_parameters()] == [
        "weight",
        "layer_norm.weight",
        "layer_norm.bias",
    ]
    with pytest.raises(ValueError, match="before"):
        prepare_dit(dit, EngineConfig())


@pytest.mark.parametrize("worlds", [1, 3])
def test_heads_together_are_the_heads_apart(worlds: int) -> None:
    """In any batch, with more than one group, and with a text of their own each."""
    latents = []
    for switches in ({}, {"fuse_heads": True, "permute_proj": True}):
        world = World(prepare_parts(tiny_parts(), EngineConfig(**switches)), worlds)
        world.reset(seed=0)
        for _ in range(4):
            chunk = world.step(["turn left", "walk forward", "turn right"][:worlds])
        latents.append(chunk.latents)
    assert not torch.equal(*latents)  # another order of sums, so it was taken
    torch.testing.assert_close(*latents, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "kind",
    [
        {"window_size": 1},
        {"window_size": 2},
        {"window_size": 4, "clean_kv_range": 2},
        {"window_size": 2, "passes": 3, "distilled": False},
        {"window_size": 1, "passes": 3, "distilled": False},
    ],
)
def test_clean_chunks_beside_those_in_flight_leave_the_same_keys(kind: dict[str, int]) -> None:
    """One forward less for each chunk, the same latents, and the same keys in the cache."""
    seen, forwards = [], []
    for beside in (False, True):
        parts = prepare_parts(tiny_parts(**kind), EngineConfig(clean_beside=beside))
        world = World(parts, 2)
        world.reset(seed=0)
        world.step(["turn left", "walk forward"])
        # One world begins anew, so that for a while only the other one has a clean chunk to write.
        world.reset(seed=5, start="text", worlds=[1])
        hook = parts.dit.register_forward_hook(lambda *given: forwards.append(beside))  # noqa: B023
        chunks = [world.step(["turn left", "turn right"]).latents for _ in range(4)]
        hook.remove()
        keys, values = world._stream.cache.clean()
        seen.append((torch.cat(chunks), keys.clone(), values.clone()))
    for ours, theirs in zip(*seen, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert forwards.count(True) < forwards.count(False)


def test_heads_of_mixed_precision_stay_apart() -> None:
    parts = tiny_parts()
    half = parts.dit.bfloat16()
    for block in half.blocks:
        block.self_attention.q_layernorm.float()
    prepare_dit(half, EngineConfig(fuse_heads=True))
    assert type(half.blocks[0].self_attention.linear_qkv).__name__ == "QKV"


def test_direct_convolution_gives_a_clip_the_same_pixels_in_any_company() -> None:
    parts = prepare_parts(tiny_parts(), EngineConfig(direct_convolution=True))
    decoder = parts.vae.decoder
    assert decoder.direct
    latents = torch.randn(5, 8, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        video = decoder(latents)
        alone = torch.cat([decoder.last_layer(x) for x in _before_last_layer(decoder, latents)])
        torch.testing.assert_close(video, alone, rtol=1e-5, atol=1e-5)
        folded = _before_last_layer(decoder, latents)
        many = _directly(decoder, torch.cat(folded))
        assert torch.equal(many, torch.cat([_directly(decoder, x) for x in folded]))


def _before_last_layer(decoder: Decoder, latents: torch.Tensor) -> list[torch.Tensor]:
    """What the last layer is given, clip by clip."""
    seen: list[torch.Tensor] = []
    hook = decoder.last_layer.register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    decoder.direct = False
    decoder(latents)
    decoder.direct = True
    hook.remove()
    return seen


def _directly(decoder: Decoder, x: torch.Tensor) -> torch.Tensor:
    return decoder.last(x)


def test_new_captions_compile_nothing() -> None:
    parts = tiny_parts()
    dit = prepare_dit(parts.dit, EngineConfig(compile=True), "eager")
    config = StreamConfig(parts.config.sampler, parts.config.latent_size)
    stream = ChunkStream(dit, config)
    stream.reset([0], [0], None)
    frames = []
    for chunk in range(8):
        caption = stream.text_kv(torch.randn(1 + chunk, 16))
        stream.stage([0], [caption])
        frames.append(counters["frames"]["total"])
    assert frames[0] > 0
    assert frames[3:] == [frames[2]] * 5
    assert not counters["graph_break"]


def test_float32_projection_is_told() -> None:
    parts = tiny_parts()
    assert slow_parts(parts.dit) is None
    dit = parts.dit.bfloat16()
    for block in dit.blocks:
        block.self_attention.linear_proj.float()
    assert "2 layers" in str(slow_parts(dit))
    assert slow_parts(prepare_dit(dit, EngineConfig(bfloat16_proj=True))) is None


def test_weights_in_training_and_wrong_switches_are_refused() -> None:
    with pytest.raises(ValueError, match="requires_grad"):
        prepare_dit(tiny_parts().dit.requires_grad_(True), EngineConfig())
    with pytest.raises(ValueError, match=r"EngineConfig\.compile is 'yes'"):
        EngineConfig(compile="yes")  # type: ignore[arg-type]


def test_tiles_in_batches_show_the_same_world() -> None:
    frames = []
    for engine in (EngineConfig(), EngineConfig(batch_tiles=True, decode_stream=True)):
        parts = replace(tiny_parts(num_steps=2), tile=TileConfig(32, 32, 4))
        world = World(prepare_parts(parts, engine))
        world.reset(seed=0)
        frames.append(torch.tensor(world.step("turn left").frames.astype("int16")))
    assert (frames[0] - frames[1]).abs().max() <= 1


class StandInStream:
    """A stream that notes what is asked of it."""

    def __init__(self, notes: list[str], name: str) -> None:
        self.notes, self.name = notes, name

    def wait_stream(self, other: StandInStream) -> None:
        self.notes.append(f"{self.name} waits for {other.name}")

    def record_event(self) -> StandInStream:
        self.notes.append(f"{self.name} done")
        return self

    def wait(self, stream: StandInStream) -> None:
        self.notes.append(f"{stream.name} waits for event of {self.name}")


def test_pixels_are_made_beside_and_waited_for_when_they_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes: list[str] = []
    main, side = StandInStream(notes, "main"), StandInStream(notes, "side")
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: side)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda x, stream: None)
    parts = tiny_parts(num_steps=2)
    plain, beside = World(parts), World(replace(parts, beside=SideStream(torch.device("cpu"))))
    for world in (plain, beside):
        world.reset(seed=0)
    notes.clear()
    chunk = beside.step("turn left")
    assert notes == ["side waits for main", "side done"]  # and main has not waited
    assert (chunk.frames == plain.step("turn left").frames).all()
    assert notes[2:] == ["main waits for event of side"]


def test_triton_is_asked_for_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = EngineConfig(fused_quantise=True)
    monkeypatch.setattr("magi_world.engine.importlib.util.find_spec", lambda name: None)
    prepare_dit(tiny_parts().dit, engine)  # on a CPU it changes nothing
    parts = tiny_parts()
    with fake_cuda(), pytest.raises(ValueError, match="pip install triton"):
        prepare_dit(cuda_parts(parts, fp8=True).dit, engine)
