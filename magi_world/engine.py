"""How a model is laid out for speed. Every switch is off by default, and off means that the
parameters and the order of sums are those of the released code.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, fields, replace

import torch
from torch import nn

from magi_world.config import require
from magi_world.model.dit import DiT
from magi_world.model.layers import (
    Attention,
    Float32Linear,
    Fp8Linear,
    FusedHeads,
    FusedQKV,
    lay_out,
)
from magi_world.model.tiling import Together
from magi_world.world.parts import SideStream, WorldParts


@dataclass(frozen=True)
class EngineConfig:
    """Switches, each tested against the reference numbers by itself.

    compile: the parts of a block before and after attention are compiled (`torch.compile`): norms,
        rotations, gates and sums become a few kernels. The first chunks of a process then take
        minutes; new captions compile nothing.
    permute_proj: the columns of linear_proj are put in the order in which attention gives them,
        once, instead of shuffling the activations in every layer.
    fuse_qkv: the four projections in front of attention are one matrix product; of fp8 layers,
        which keep scales of their own, the input is quantised once where the scales agree.
    fuse_heads: self-attention's queries and keys and the text's queries are one product, one norm
        and one rotation. Of a float32 stream; elsewhere it changes nothing.
    clean_beside: the keys of the chunk that became clean are made in the first forward of the
        chunks in flight, instead of one of their own.
    graphs: forwards of the chunks in flight are recorded and replayed as CUDA graphs. For small
        worlds, whose kernels take less time than their launches; a snapshot moves the history, so
        that they are recorded anew.
    fast_accumulate: fp8 products sum with the tensor cores' short accumulators, as the released
        code does. GPU only; elsewhere it changes nothing.
    fused_quantise: what fp8 products read is quantised by one kernel of Triton's. GPU only.
    batch_tiles: tiles of the autoencoder that are alike are run in one batch.
    decode_stream: pixels are made on a stream of their own, so that the next chunk can be denoised
        at the same time. GPU only.
    direct_convolution: the autoencoder's last layer is oneDNN's convolution, of all clips at once.
        CPU only.
    bfloat16_proj: linear_proj that is stored in float32 is rounded to bfloat16, in a stream of
        bfloat16. In full precision it costs about as much as all other products together.
    """

    compile: bool = False
    permute_proj: bool = False
    fuse_qkv: bool = False
    fuse_heads: bool = False
    clean_beside: bool = False
    graphs: bool = False
    fast_accumulate: bool = False
    fused_quantise: bool = False
    batch_tiles: bool = False
    decode_stream: bool = False
    direct_convolution: bool = False
    bfloat16_proj: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            require(
                isinstance(value, bool),
                f"EngineConfig.{field.name} is {value!r:.40}; it must be True or False",
            )


# What always pays on a CPU, without a compiler; for worlds of one's own, which have no reference.
OWN_ON_CPU = EngineConfig(
    permute_proj=True, fuse_heads=True, clean_beside=True, direct_convolution=True
)


def prepare_parts(parts: WorldParts, engine: EngineConfig) -> WorldParts:
    """The parts of a world as ``engine`` says; its models are changed in place.

    Raises:
        ValueError: as `prepare_dit`.
    """
    dit = prepare_dit(parts.dit, engine)
    device = dit.final_linear.linear.weight.device
    if engine.direct_convolution and device.type == "cpu" and torch.backends.mkldnn.is_available():
        parts.vae.decoder.direct = True
    if engine.batch_tiles:
        parts = replace(parts, spread=Together())
    if engine.decode_stream and device.type == "cuda":
        parts = replace(parts, beside=SideStream(device))
    return parts


def prepare_dit(dit: DiT, engine: EngineConfig, compiler: str = "inductor") -> DiT:
    """Lay a loaded transformer out as ``engine`` says, in place, once.

    What is changed can no longer be saved under the released names.

    Args:
        compiler: a backend of `torch.compile`.

    Raises:
        ValueError: it was prepared before, it is still to be trained, or Triton is missing.
    """
    require(
        not any(p.requires_grad for p in dit.parameters()),
        "dit has parameters with requires_grad; only frozen weights can be laid out for speed",
    )
    require(not dit.prepared, "dit was prepared before; load it again")
    on_card = dit.final_linear.linear.weight.is_cuda
    require(
        not (engine.fused_quantise and on_card and importlib.util.find_spec("triton") is None),
        "EngineConfig.fused_quantise is True, but triton is not installed: pip install triton",
    )
    dit.prepared, dit.clean_beside, dit.graphs = True, engine.clean_beside, engine.graphs
    for block in dit.blocks:
        attention = block.self_attention
        if engine.bfloat16_proj and dit.dtype == torch.bfloat16:
            _round(attention.linear_proj)
        if engine.permute_proj:
            _permute(attention)
        if engine.fuse_heads and FusedHeads.fits(attention):
            attention.linear_qkv = FusedHeads(attention)  # type: ignore[assignment]
        elif engine.fuse_qkv:
            attention.linear_qkv = FusedQKV(attention.linear_qkv)  # type: ignore[assignment]
        if engine.compile:
            attention.project = torch.compile(attention.project, backend=compiler)  # type: ignore
            block.merge = torch.compile(block.merge, backend=compiler)  # type: ignore
    for module in dit.modules():
        if isinstance(module, Fp8Linear):
            module.fast_accumulate = engine.fast_accumulate
            module.fused_quantise = engine.fused_quantise
    return dit


def slow_parts(dit: DiT) -> str | None:
    """What makes a transformer much slower on a GPU than it need be, and what would help."""
    full = [
        block.self_attention.linear_proj
        for block in dit.blocks
        if isinstance(block.self_attention.linear_proj, Float32Linear)
        and block.self_attention.linear_proj.weight.dtype == torch.float32
    ]
    if dit.dtype != torch.bfloat16 or not full:
        return None
    return (
        f"linear_proj of {len(full)} layers is stored in float32 and multiplies without tensor "
        "cores; EngineConfig(bfloat16_proj=True) rounds it to bfloat16"
    )


def _round(layer: nn.Module) -> None:
    if isinstance(layer, Float32Linear):
        layer.weight = nn.Parameter(layer.weight.to(torch.bfloat16), requires_grad=False)


def _permute(attention: Attention) -> None:
    """Columns from 8 slices of both in turn to all of self-attention, then all of the text's."""
    layer = attention.linear_proj
    order = torch.arange(layer.weight.shape[-1], device=layer.weight.device)
    order = order.unflatten(0, (8, 2, -1)).transpose(0, 1).flatten()

    def ordered(x: torch.Tensor) -> nn.Parameter:
        # fp8 numbers cannot be gathered, their bytes can.
        fp8 = x.dtype == torch.float8_e4m3fn
        y = x.view(torch.uint8)[..., order].view(x.dtype) if fp8 else x[..., order]
        return nn.Parameter(y.contiguous(), requires_grad=False)

    layer.weight = ordered(layer.weight)
    if isinstance(layer, Fp8Linear):
        assert layer.smooth_scale is not None
        layer.smooth_scale = ordered(layer.smooth_scale)
    lay_out(layer)
    attention.columns_in_order = True
