"""Finite videos: the endless stream, fed and then drained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from magi_world.config import DiTConfig
from magi_world.model.dit import DiT
from magi_world.sampling.kv_cache import KeyValueCache, MakeCache
from magi_world.sampling.stream import ChunkStream, StreamConfig
from tests.reference.compare import relative_error
from tests.reference.forward import load_reference_dit
from tests.reference.released import sampler_config_from_released


def check_sampler(
    case: dict,
    tensors: dict[str, Tensor],
    folder: Path,
    make_dit: Callable[[DiTConfig], DiT] = DiT,
    make_cache: MakeCache = KeyValueCache,
) -> dict[str, float]:
    """Relative error of every emitted chunk."""
    config = case["config"]
    dtype = getattr(torch, config["model_config"]["params_dtype"].removeprefix("torch."))
    weights = folder / f"{case['weights']}.safetensors"
    dit = load_reference_dit(weights, config, dtype, make_dit)
    sampler = sampler_config_from_released(config)
    width, noise = sampler.chunk_width, tensors["noise"]

    def golden_noise(seed: int, index: int, shape: tuple[int, ...]) -> Tensor:
        return noise[0, :, index * width : (index + 1) * width]

    batch, size = noise.shape[0], tuple(noise.shape[-2:])
    dit = dit.to(noise.device)
    stream = ChunkStream(dit, StreamConfig(sampler, size, batch), golden_noise, make_cache)
    prefix = tensors.get("prefix_latents")
    stream.reset(range(batch), [0] * batch, prefix)
    prefix_frames = 0 if prefix is None else prefix.shape[2]
    clean: dict[int, Tensor] = {}
    for index in range(stream.rows[0].window.first, case["chunks"]):
        features = tensors["caption"][0, index, : tensors["caption_lens"][index]]
        caption = stream.text_kv(features)
        collect(clean, stream, [caption] * batch)
    while stream.rows[0].window.count:
        collect(clean, stream, None)
    # A prefix of a single latent frame stays in the video, a longer one is cut off.
    kept = {}
    for index, latents in clean.items():
        cut = 0 if prefix_frames == 1 else max(0, prefix_frames - index * width)
        kept[index] = latents[:, :, cut:]
    expected = {k: v for k, v in tensors.items() if k.startswith("clean.")}
    if len(kept) != len(expected):
        raise AssertionError(f"{len(kept)} chunks emitted, expected {len(expected)}")
    return {
        f"clean.{i}": relative_error(kept[index], expected[f"clean.{i}"])
        for i, index in enumerate(sorted(kept))
    }


def collect(clean: dict[int, Tensor], stream: ChunkStream, captions: list | None) -> None:
    """One stage; the chunk that lands is filed under its index."""
    index = stream.rows[0].window.first
    landed = stream.stage(range(stream.config.num_worlds), captions)
    if landed is not None:
        clean[index] = landed
