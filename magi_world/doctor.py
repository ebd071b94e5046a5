"""What is in a folder of released weights, what is wrong with it, and the memory it will need.

File headers are read, tensors are not: a report on hundreds of gigabytes takes a second.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from magi_world.config import MagiConfig
from magi_world.io.read_released import read_vae_config
from magi_world.io.released import (
    LOOKED_FOR,
    PRESETS,
    CheckpointLayout,
    DitFolder,
    dit_folder_name,
    dit_sizes,
    find_layout,
)
from magi_world.io.safetensors_io import TensorInfo, differences, inspect_checkpoint
from magi_world.memory import cache_bytes
from magi_world.model.dit import DiT, parameter_dtype
from magi_world.model.t5 import DECODER_PREFIXES
from magi_world.model.text import SpecialTokens
from magi_world.model.vae import VAE

_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class PartReport:
    """One part of a checkpoint.

    part: "transformer", "vae", "t5" or "special_tokens".    name: the preset, or what it is.
    tensors, parameters: counts over all that is stored.
    disk_bytes: size of its files.
    memory_bytes: precision -> bytes of the weights once loaded in it.
    cache_bytes: precision -> bytes of the key/value cache (transformers of a known preset).
    problems: what keeps it from being loaded; empty if nothing does.
    """

    part: str
    name: str
    path: str
    tensors: int
    parameters: int
    disk_bytes: int
    memory_bytes: dict[str, int]
    cache_bytes: dict[str, int]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class WeightsReport:
    """What :func:`report_weights` found.

    missing: what was looked for and is not there.
    frame_sizes, window_sizes: preset -> (height, width), chunks in flight that its cache is for.
    """

    root: str
    parts: tuple[PartReport, ...]
    missing: tuple[str, ...]
    frame_sizes: dict[str, tuple[int, int]]
    window_sizes: dict[str, int]

    @property
    def problems(self) -> tuple[str, ...]:
        """Everything that is wrong or missing."""
        return tuple(p for part in self.parts for p in part.problems) + self.missing

    def memory(self, preset: str, dtype: str = "bfloat16", t5: bool = True) -> int:
        """Bytes that a preset needs: weights of all parts and cache; activations come on top.

        Args:
            preset: name of a transformer in the report.
            dtype: "bfloat16" or "float32".
            t5: whether T5 is loaded too, rather than captions saved beforehand.
        """
        wanted = {"vae"} | ({"t5"} if t5 else set())
        parts = [p for p in self.parts if p.part in wanted]
        parts += [p for p in self.parts if p.part == "transformer" and p.name == preset][:1]
        return sum(p.memory_bytes.get(dtype, 0) + p.cache_bytes.get(dtype, 0) for p in parts)

    def lines(self) -> list[str]:
        """The report as text, for a terminal."""
        out = [f"weights in {self.root}"]
        for part in self.parts:
            out.append(f"{part.part}: {part.name}, {part.path}")
            if part.tensors:
                out.append(
                    f"    {part.tensors:,} tensors, {part.parameters:,} numbers, "
                    f"{_size(part.disk_bytes)} on disk"
                )
            if part.memory_bytes:
                out.append(f"    in memory: {_sizes(part.memory_bytes)}")
            if part.cache_bytes:
                height, width = self.frame_sizes[part.name]
                out.append(
                    f"    key/value cache for {height}x{width} (height x width), window "
                    f"{self.window_sizes[part.name]}: {_sizes(part.cache_bytes)}"
                )
            out += [f"    PROBLEM: {problem}" for problem in part.problems]
        out += [f"missing: {missing}" for missing in self.missing]
        kinds = {part.part for part in self.parts}
        for part in self.parts:
            if not part.cache_bytes or part.problems:
                continue
            need = f"{part.name} in bfloat16 needs {_size(self.memory(part.name, t5=False))}"
            if "t5" in kinds:
                need += f" of memory, {_size(self.memory(part.name))} with T5 beside it"
            uncounted = "" if "vae" in kinds else "the missing VAE and "
            out.append(f"{need}; {uncounted}activations come on top")
        return out


def report_weights(
    folder: str | Path,
    frame_size: tuple[int, int] | None = None,
    window_size: int | None = None,
    presets: Mapping[str, MagiConfig] = PRESETS,
) -> WeightsReport:
    """Look at a folder of released weights without loading them.

    Args:
        folder: as it was downloaded.
        frame_size: (height, width) for the cache; None = the preset's.
        window_size: chunks in flight for the cache; None = the preset's.
        presets: the models that are known.

    Raises:
        FileNotFoundError: there is no such folder. All else that is wrong is in the report.
        ValueError: a frame or window size that does not fit the presets.
    """
    layout = find_layout(folder)
    configs = {
        name: config.with_options(frame_size=frame_size, window_size=window_size)
        for name, config in presets.items()
    }
    parts = [_report_dit(dit, configs) for dit in layout.dits]
    if layout.vae:
        parts.append(_report_vae(layout.vae))
    if layout.t5:
        parts.append(_report_t5(layout.t5))
    if layout.special_tokens:
        parts.append(_report_special_tokens(layout.special_tokens))
    known = [p.name for p in parts if p.part == "transformer" and p.name in configs]
    return WeightsReport(
        root=str(layout.root),
        parts=tuple(parts),
        missing=_missing(layout),
        frame_sizes={name: configs[name].frame_size for name in known},
        window_sizes={name: configs[name].sampler.window_size for name in known},
    )


def _missing(layout: CheckpointLayout) -> tuple[str, ...]:
    lost = [what for part, what in LOOKED_FOR.items() if getattr(layout, part) is None]
    if not layout.dits:
        lost.insert(0, "transformer: a folder inference_weight[.fp8][.distill]")
    return tuple(lost)


def _report_dit(folder: DitFolder, configs: Mapping[str, MagiConfig]) -> PartReport:
    stored, problems = _inspect(folder.path)
    layers, hidden = dit_sizes(stored)
    name, cache = f"{layers} layers of width {hidden}", {}
    config = next(
        (
            c
            for c in configs.values()
            if dit_folder_name(c) == folder.path.name
            and (c.dit.layers, c.dit.hidden) == (layers, hidden)
        ),
        None,
    )
    if config:
        name = config.name
        cache = {
            key: cache_bytes(config, 1, config.sampler.history, dtype)
            for key, dtype in _DTYPES.items()
        }
        with torch.device("meta"):
            problems += differences(DiT(config.dit).state_dict(), stored)
    elif stored:
        problems.append(f"{folder.path.name} with {name} is none of {', '.join(configs)}")
    memory = _memory(stored, parameter_dtype)
    return _part("transformer", name, folder.path, stored, memory, problems, cache)


def _report_vae(folder: Path) -> PartReport:
    stored, problems = _inspect(folder)
    try:
        with torch.device("meta"):
            problems += differences(VAE(read_vae_config(folder)).state_dict(), stored)
    except ValueError as error:
        problems.append(str(error))
    return _part("vae", "ViTVAE", folder, stored, _memory(stored), problems)


def _report_t5(folder: Path) -> PartReport:
    stored, problems = _inspect(folder)
    config = json.loads((folder / "config.json").read_text())
    encoder = {n: i for n, i in stored.items() if not n.startswith(DECODER_PREFIXES)}
    blocks = {n.split(".")[2] for n in encoder if n.startswith("encoder.block.")}
    if stored and len(blocks) != config.get("num_layers"):
        problems.append(f"{len(blocks)} encoder blocks instead of {config.get('num_layers')}")
    width = config.get("d_model")
    norm = stored.get("encoder.final_layer_norm.weight")
    if stored and (norm is None or norm.shape != (width,)):
        problems.append(f"encoder.final_layer_norm.weight is not of shape [{width}]")
    if not any((folder / name).is_file() for name in ("spiece.model", "tokenizer.json")):
        problems.append(f"no tokenizer (spiece.model or tokenizer.json) in {folder}")
    name = f"T5 encoder of width {width}"
    return _part("t5", name, folder, stored, _memory(encoder), problems)


def _report_special_tokens(file: Path) -> PartReport:
    problems, name = [], "features in front of captions"
    try:
        name += f", {SpecialTokens.load(file).channels} channels"
    except ValueError as error:
        problems.append(str(error))
    return _part("special_tokens", name, file, {}, {}, problems)


def _inspect(source: Path) -> tuple[dict[str, TensorInfo], list[str]]:
    """Headers; or, where they cannot be read, none and the reason."""
    try:
        return inspect_checkpoint(source), []
    except (ValueError, OSError, ImportError) as error:
        return {}, [str(error)]


def _memory(
    stored: Mapping[str, TensorInfo],
    held_in: Callable[[str, torch.dtype, torch.dtype], torch.dtype] = lambda name, own, dtype: (
        dtype
    ),
) -> dict[str, int]:
    """Bytes once loaded; ``held_in`` says in which precision a parameter ends up."""
    return {
        key: sum(math.prod(i.shape) * held_in(n, i.dtype, d).itemsize for n, i in stored.items())
        for key, d in _DTYPES.items()
        if stored
    }


def _part(
    part: str,
    name: str,
    path: Path,
    stored: Mapping[str, TensorInfo],
    memory: dict[str, int],
    problems: list[str],
    cache: dict[str, int] | None = None,
) -> PartReport:
    return PartReport(
        part=part,
        name=name,
        path=str(path),
        tensors=len(stored),
        parameters=sum(math.prod(i.shape) for i in stored.values()),
        disk_bytes=sum(f.stat().st_size for f in {i.file for i in stored.values()}),
        memory_bytes=memory,
        cache_bytes=cache or {},
        problems=tuple(problems),
    )


def _size(count: int) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024  # type: ignore[assignment]
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def _sizes(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{_size(size)} as {key}" for key, size in sizes.items())
