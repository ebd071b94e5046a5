"""One YAML file -> every dataclass of a world's training, strictly read."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from magi_world.config import SamplerConfig
from magi_world.training.classifier import ClassifierConfig
from magi_world.training.codec import CodecConfig
from magi_world.training.distill import DistillConfig
from magi_world.training.dynamics import DynamicsConfig
from magi_world.training.fit_heads import FitHeadsConfig
from magi_world.training.phrases import CommandConfig
from magi_world.training.record import RecordConfig
from magi_world.training.text import TextConfig

T = TypeVar("T")


@dataclass(frozen=True)
class EvaluateConfig:
    """How much is measured.

    clips: held-out situations; seconds: length of the long dream; worlds: dreamed in one batch.
    """

    clips: int = 32
    seconds: float = 60.0
    worlds: int = 8
    seed: int = 0


@dataclass(frozen=True)
class WorldTrainConfig:
    """Everything that turns a simulator into a world package.

    fps: frames a second at which the world plays. starts, start_chunks: real start videos shipped,
    and their length; starts_before: a recorded event that comes soon after each, '' = any clip.
    text, licence, description, provenance: see `magi_world.package`.
    """

    name: str
    record: RecordConfig
    commands: Mapping[str, CommandConfig]
    text: TextConfig
    codec: CodecConfig
    dynamics: DynamicsConfig
    distill: DistillConfig
    heads: FitHeadsConfig
    classifier: ClassifierConfig
    sampler: SamplerConfig
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    fps: int = 24
    starts: int = 32
    start_chunks: int = 3
    starts_before: str = ""
    default_command: str = ""
    description: str = ""
    licence: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if list(self.commands) != list(self.record.actions):
            raise ValueError(
                f"commands are {list(self.commands)}; they must be those of record.actions in the "
                f"same order, {list(self.record.actions)}"
            )
        patch = self.codec.vae.patch_length
        if self.sampler.chunk_width * patch != self.record.frames_per_chunk:
            raise ValueError(
                f"sampler.chunk_width is {self.sampler.chunk_width}; times {patch} frames it must "
                f"be record.frames_per_chunk ({self.record.frames_per_chunk})"
            )
        if self.starts_before not in ("", *self.record.events):
            raise ValueError(
                f"starts_before is {self.starts_before!r}; it must be '' or one of "
                f"{list(self.record.events)}"
            )
        if self.default_command not in ("", *self.commands):
            raise ValueError(
                f"default_command is {self.default_command!r}; it must be one of "
                f"{list(self.commands)}"
            )


def read_settings(path: str | Path) -> WorldTrainConfig:
    """Read and check a training configuration.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, an unknown or missing field, a value that is not allowed; the message
            names the field.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    return _build(WorldTrainConfig, values, path.name)


def _build(kind: type[T], values: Any, where: str) -> T:
    """A dataclass from a mapping, recursively; nothing is ignored."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} must be a mapping, not {values!r}")
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"{where} has unknown fields {unknown}; known are {sorted(known)}")
    needed = {n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    if missing := sorted(needed - set(values)):
        raise ValueError(f"{where} lacks the fields {missing}")
    hints = get_type_hints(kind)
    return kind(**{n: _value(hints[n], v, f"{where}: {n}") for n, v in values.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        return _build(hint, value, where)
    if origin in (Union, types.UnionType):
        return value if value is None else _value(get_args(hint)[0], value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where} must be a list, not {value!r}")
        inner = get_args(hint)[0]
        return tuple(_value(inner, v, where) for v in value)
    if origin is not None and issubclass(origin, Mapping):
        inner = get_args(hint)[1]
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} must be a mapping, not {value!r}")
        return {str(k): _value(inner, v, f"{where}: {k}") for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (int, float, str, bool) and type(value) is not hint:
        raise ValueError(f"{where} is {value!r}; it must be of type {hint.__name__}")
    return value
