"""The layout for speed: every switch gives the reference numbers, and compiles once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import pytest
import torch
import torch._dynamo
from torch._dynamo.utils import counters

import tests.reference.forward as forward
from magi_world.engine import EngineConfig, prepare_dit, slow_parts
from magi_world.io.weights import load_tensors
from magi_world.model.dit import DiT
from magi_world.sampling.stream import ChunkStream, StreamConfig
from tests.checkpoints import GOLDEN, golden_case
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


def test_new_captions_compile_nothing() -> None:
    parts = tiny_parts()
    dit = prepare_dit(parts.dit, EngineConfig(compile=True), "eager")
    config = StreamConfig(parts.config.sampler, parts.config.latent_size)
    stream = ChunkStream(dit, config)
    stream.reset([0], [0], None)
    frames = []
    for chunk in range(8):
        caption = stream.caption(torch.randn(1 + chunk, 16))
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
