"""One YAML file -> every dataclass of a world's training, strictly read.

Every section may be left out (`magi_world.training.defaults`), and all mistakes are told at once.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from magi_world.config import SamplerConfig
from magi_world.training.agreement import disagreements
from magi_world.training.classifier import ClassifierConfig
from magi_world.training.codec import CodecConfig
from magi_world.training.defaults import default_sections
from magi_world.training.distill import DistillConfig
from magi_world.training.dynamics import DynamicsConfig
from magi_world.training.fit_heads import FitHeadsConfig
from magi_world.training.phrases import CommandConfig
from magi_world.training.record import RecordConfig
from magi_world.training.text import TextConfig
from magi_world.training.yaml_lines import FAILED, build, built_sections, read_lines


@dataclass(frozen=True)
class EvaluateConfig:
    """How much is measured.

    clips: held-out situations; seconds: length of the long dream; worlds: dreamed in one batch;
    lengths: chunks after which a dream is held against the real episode;
    choices: held-out clips a command, at most, of which the true future is to be told; figures:
    'module:function' of further figures of this one world, called with (world, held-out
    recording, this configuration), '' = none.
    """

    clips: int = 32
    seconds: float = 60.0
    worlds: int = 8
    lengths: tuple[int, ...] = (1, 4, 16, 64)
    choices: int = 12
    figures: str = ""
    seed: int = 0


@dataclass(frozen=True)
class WorldTrainConfig:
    """Everything that turns a simulator into a world package.

    fps: frames a second at which the world plays. starts, start_chunks: real start videos shipped,
    and their length; starts_before: a recorded event that comes soon after each, '' = any clip.
    things: what the world knows, for the answer to a text that it does not, () lists the commands.
    text, licence, description, provenance: see `magi_world.io.package`.
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
    things: tuple[str, ...] = ()
    description: str = ""
    licence: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        sections = {f.name: getattr(self, f.name) for f in fields(self)}
        if found := disagreements(sections):
            raise ValueError("; ".join(text for _, text in found))


def read_settings(path: str | Path) -> WorldTrainConfig:
    """Read and check a training configuration; modules beside the file can be imported from then.

    Raises:
        FileNotFoundError: no such file.
        Mistakes: a ValueError with everything that is wrong, each with its line: not YAML, an
            unknown field, a value that is not allowed, sections that do not fit together.
    """
    path = Path(path)
    source = read_lines(path)
    importable(path.resolve().parent)
    record = source.values.get("record")
    if isinstance(record, dict) and record.get("env") and not record.get("actions"):
        from magi_world.training.propose import propose_actions

        try:
            record["actions"] = propose_actions(record)
        except (ValueError, ImportError) as error:
            source.wrong(("record", "env"), f"record.env: {error}")
            source.done()
    defaults = default_sections(source.values, path.stem)
    _complete_commands(source.values, defaults)
    config = build(WorldTrainConfig, source, defaults)
    if config is FAILED:
        # What could be built is still held against the rest.
        sections = built_sections(WorldTrainConfig, source, defaults)
        for where, text in disagreements(sections):
            source.wrong(tuple(where.split(".")), text)
    source.done()
    return config


def importable(folder: Path) -> None:
    """Let modules that lie beside a configuration be imported, after everything installed."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _complete_commands(values: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """Commands in the order of the actions; those that the file does not word are proposed."""
    given = values.get("commands")
    if not isinstance(given, dict) or not defaults["commands"]:
        return
    proposed = defaults["commands"]
    known = {str(name): entry for name, entry in given.items()}
    ordered = {name: known.get(name, proposed[name]) for name in proposed}
    values["commands"] = {**ordered, **{k: v for k, v in known.items() if k not in ordered}}
