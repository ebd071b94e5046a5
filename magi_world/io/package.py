"""A world package: a folder that holds everything a world needs (docs/worlds.md).

    world.json            schema, configs, commands, licence, how it was trained, how good it is
    dit.safetensors       transformer          vae.safetensors     autoencoder
    text/                 text encoder         starts.safetensors  start videos, as latents
    heads.safetensors     reward and end predictors (optional)

Nothing is unpickled. What is missing, damaged or newer than this package is named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from magi_world.config import DiTConfig, MagiConfig, SamplerConfig, VAEConfig
from magi_world.io.files import write_text
from magi_world.io.records import build, field_of, read_json
from magi_world.io.safetensors_io import (
    WeightsError,
    find_nan,
    load_into,
    load_tensors,
    save_tensors,
)
from magi_world.model.dit import parameter_dtype
from magi_world.model.layers import settle
from magi_world.model.static_text import StaticTextEncoder
from magi_world.model.vae import VAE
from magi_world.world.parts import MakeDiT, WorldParts, whole_dit
from magi_world.world.spec import Command, WorldSpec

SCHEMA = 1
RECORD = "world.json"
_SPEC: dict[str, Any] = {
    "default_command": str | None,
    "scene": str,
    "prompt_template": str,
    "description": str,
    "licence": str,
    "threshold": float | None,
    "things": tuple[str, ...],
    "best_start": int | None,
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Config = TypeVar("Config")


def read_record(folder: str | Path) -> dict[str, Any]:
    """world.json of a package.

    Raises:
        FileNotFoundError: no such package.
        WeightsError: not JSON, or of a newer schema.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a world package: it has no {RECORD}")
    try:
        record = read_json(path)
    except ValueError as error:
        raise WeightsError(str(error)) from error
    schema = record.get("schema")
    if type(schema) is not int or schema < 1:
        raise WeightsError(f"{path} has no integer field 'schema'")
    if schema > SCHEMA:
        raise WeightsError(
            f"{path} has schema {schema}; this magi-world reads up to {SCHEMA}: upgrade it"
        )
    return record


def read_package(
    folder: str | Path,
    device: str | torch.device = "cpu",
    dtype: Literal["float32", "bfloat16"] | None = None,
    num_steps: int | None = None,
    window_size: int | None = None,
    frame_size: tuple[int, int] | None = None,
    history: int | None = None,
    sink: int | None = None,
    make_dit: MakeDiT = whole_dit,
) -> WorldParts:
    """Load a world package.

    Args:
        dtype: "float32" or "bfloat16" for the transformer; None is the package's own.
        num_steps, window_size, frame_size, history, sink: instead of the package's own.
        make_dit: of a process that has a part of the transformer only.

    Raises:
        FileNotFoundError: no package, or a file of it is missing.
        WeightsError: a field or tensor is missing, extra, damaged or of the wrong shape.
        ValueError: options that this world cannot run with.
    """
    folder = Path(folder)
    record = read_record(folder)
    own = _config(record, folder)
    config = own.with_options(num_steps, window_size, frame_size, dtype, history, sink)
    for name in _files(record, folder):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is incomplete: {name} is missing")
    stream_dtype = DTYPES[config.dtype]
    with torch.device("meta"):
        (dit, foreign), vae = make_dit(config.dit), VAE(config.vae)
    dit = load_into(
        dit,
        folder / "dit.safetensors",
        device,
        lambda name, info: parameter_dtype(name, torch.float32, stream_dtype),
        ignore=foreign,
    )
    vae = load_into(vae, folder / "vae.safetensors", device, lambda name, info: torch.float32)
    written = _files(record, folder)
    starts = _read_starts(config, folder) if "starts.safetensors" in written else None
    heads = _read_heads(record, folder, device)
    text = StaticTextEncoder(folder / "text")
    if text.channels != config.dit.caption_channels:
        raise WeightsError(
            f"{folder / 'text'} gives {text.channels} channels; the transformer reads "
            f"{config.dit.caption_channels}"
        )
    for file, module in (("dit", dit), ("vae", vae), ("heads", heads)):
        if module is not None and (bad := find_nan(module)):
            raise WeightsError(f"{folder / file}.safetensors holds NaN or infinity: {bad}")
    # Sessions and snapshots carry the fingerprint of these hashes: it must be that of the files.
    if problems := _damage(written, file_hashes(folder)):
        raise WeightsError(f"{folder}: {'; '.join(problems[:4])}")
    settle(dit)
    settle(vae)
    return WorldParts(
        spec=_spec(record, config, folder, 0 if starts is None else len(starts)),
        config=config,
        dit=_frozen(dit),
        vae=_frozen(vae),
        text=text,
        starts=starts,
        heads=heads,
    )


def write_package(
    folder: str | Path, parts: WorldParts, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write a package; an older one in the same folder is replaced file by file, world.json last.

    Args:
        dtype: of the transformer's matrices on disk; everything else is kept in float32, or in
            float16 where that is exact enough (autoencoder, start latents).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dit = {
        name: value.to(dtype if value.ndim > 1 else torch.float32)
        for name, value in parts.dit.state_dict().items()
    }
    vae = {
        name: value.to(torch.float16 if value.ndim > 1 else torch.float32)
        for name, value in parts.vae.state_dict().items()
    }
    save_tensors(folder / "dit.safetensors", dit)
    save_tensors(folder / "vae.safetensors", vae)
    if parts.starts is not None:
        latents = {"latents": parts.starts.to(torch.float16)}
        save_tensors(folder / "starts.safetensors", latents)
    if parts.heads is not None:
        save_tensors(folder / "heads.safetensors", parts.heads.state_dict())
    if not isinstance(parts.text, StaticTextEncoder):
        raise ValueError(
            f"a {type(parts.text).__name__} cannot be packed; it must be a StaticTextEncoder"
        )
    parts.text.save(folder / "text")
    spec, config = parts.spec, parts.config
    record = {
        "schema": SCHEMA,
        "name": spec.name,
        "frame_size": config.frame_size,
        "fps": spec.fps,
        "dtype": config.dtype,
        **{name: getattr(spec, name) for name in _SPEC},
        "commands": [asdict(c) for c in spec.commands],
        "dit": asdict(config.dit),
        "vae": asdict(config.vae),
        "sampler": asdict(config.sampler),
        "heads": None if parts.heads is None else asdict(parts.heads.config),  # type: ignore[call-overload]
        "files": file_hashes(folder),
        "quality": spec.quality,
        "provenance": spec.provenance,
    }
    write_record(folder, record)


def _read_starts(config: MagiConfig, folder: Path) -> torch.Tensor:
    path = folder / "starts.safetensors"
    tensors = load_tensors(path)
    if set(tensors) != {"latents"}:
        raise WeightsError(f"{path} holds {sorted(tensors)}; it must hold 'latents' alone")
    starts = tensors["latents"]
    # Of the frame size that was trained; another one is asked for at one's own risk.
    right = starts.ndim == 5 and starts.shape[1] == config.dit.latent_channels and len(starts) > 0
    if not right or not starts.is_floating_point() or not torch.isfinite(starts).all():
        raise WeightsError(
            f"{path} is {starts.dtype} of shape {tuple(starts.shape)}; it must be finite numbers "
            f"(K, {config.dit.latent_channels}, t, h, l)"
        )
    return starts.float()


def _read_heads(record: dict[str, Any], folder: Path, device: str | torch.device) -> Any:
    if record.get("heads") is None:
        return None
    from magi_world.model.heads import Heads, HeadsConfig

    with torch.device("meta"):
        heads = Heads(_build(HeadsConfig, record["heads"], "heads", folder))
    load_into(heads, folder / "heads.safetensors", device, lambda name, info: torch.float32)
    return _frozen(heads)


def write_record(folder: str | Path, record: dict[str, Any]) -> None:
    """Replace world.json, whole or not at all."""
    write_text(Path(folder) / RECORD, json.dumps(record, indent=1) + "\n")


def file_hashes(folder: str | Path) -> dict[str, str]:
    """SHA-256 of every file of a package but world.json."""
    files = sorted(p for p in Path(folder).rglob("*") if p.is_file() and p.name != RECORD)
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in files
        if not p.name.startswith(".")
    }


def check_package(folder: str | Path) -> list[str]:
    """What is wrong with a package's files; empty when they are those that were written."""
    record = read_record(folder)
    now, written = file_hashes(folder), _files(record, Path(folder))
    extra = [f"{name} was not written with it" for name in now if name not in written]
    return _damage(written, now) + extra


def _damage(written: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What of the files that were written is gone or different."""
    changed = [name for name in written if name in now and now[name] != written[name]]
    return [
        *(f"{name} is missing" for name in written if name not in now),
        *(f"{name} is damaged (its hash has changed)" for name in changed),
    ]


def _config(record: dict[str, Any], folder: Path) -> MagiConfig:
    for name in ("name", "frame_size", "fps", "dtype", "dit", "vae", "sampler", "commands"):
        if name not in record:
            raise WeightsError(f"{folder / RECORD} has no field {name!r}")
    called = _field(record, "name", str, folder)
    if not called.strip(". ") or len(called) > 100 or set(called) & set("/\\:\0\n"):
        # Names of films, sessions and slots begin with it.
        raise WeightsError(f"{folder / RECORD}: name is {called!r:.60}; it must be a file's name")
    try:
        return _magi_config(record, called, folder)
    except ValueError as error:
        where = "" if str(folder) in str(error) else f"{folder / RECORD}: "
        raise WeightsError(f"{where}{error}") from error


def _magi_config(record: dict[str, Any], name: str, folder: Path) -> MagiConfig:
    return MagiConfig(
        name=name,
        dit=_build(DiTConfig, record["dit"], "dit", folder),
        vae=_build(VAEConfig, record["vae"], "vae", folder),
        sampler=_build(SamplerConfig, record["sampler"], "sampler", folder),
        frame_size=_field(record, "frame_size", tuple[int, int], folder),
        fps=_field(record, "fps", float, folder),
        dtype=_field(record, "dtype", str, folder),
    )


def _build(kind: type[Config], values: Any, name: str, folder: Path) -> Config:
    try:
        return build(kind, values, f"{folder / RECORD}: {name}")
    except ValueError as error:
        raise WeightsError(str(error)) from error


def _field(record: dict[str, Any], name: str, kind: Any, folder: Path) -> Any:
    try:
        return field_of(record, name, kind, str(folder / RECORD))
    except ValueError as error:
        raise WeightsError(str(error)) from error


def _files(record: dict[str, Any], folder: Path) -> dict[str, str]:
    """Name and hash of every file that was written with the record."""
    files: dict[str, str] = _field(record, "files", dict[str, str], folder)
    for name in files:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise WeightsError(f"{folder / RECORD}: files names {name!r}, which lies outside")
    return files


def _spec(record: dict[str, Any], config: MagiConfig, folder: Path, num_starts: int) -> WorldSpec:
    listed = _field(record, "commands", list[Any], folder)
    commands = tuple(_build(Command, c, "commands", folder) for c in listed)
    texts = {name: _field(record, name, _SPEC[name], folder) for name in _SPEC if name in record}
    free = {
        name: _field(record, name, dict[str, Any], folder)
        for name in ("quality", "provenance")
        if name in record
    }
    hashes = json.dumps(_files(record, folder), sort_keys=True).encode()
    try:
        return WorldSpec(
            name=config.name,
            frame_size=config.frame_size,
            frames_per_chunk=config.frames_per_chunk,
            fps=config.fps,
            commands=commands,
            fingerprint=hashlib.sha256(hashes).hexdigest()[:16],
            num_starts=num_starts,
            **texts,
            **free,
        )
    except ValueError as error:
        raise WeightsError(f"{folder / RECORD}: {error}") from error


def _frozen(module: nn.Module) -> Any:
    return module.eval().requires_grad_(False)
