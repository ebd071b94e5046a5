"""One YAML file -> every dataclass of a world's training, strictly read.

Every section may be left out, and all mistakes are told at once.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from numbers import Real
from pathlib import Path
from typing import Any, get_type_hints

from magi_world.config import DiTConfig, MagiConfig, SamplerConfig
from magi_world.io.marked_yaml import read_yaml
from magi_world.io.records import FAILED, Source, merged, read
from magi_world.simulator import RecordConfig
from magi_world.training.codec import CodecConfig
from magi_world.training.data import mirror_command
from magi_world.training.distill import DistillConfig
from magi_world.training.dynamics import DynamicsConfig
from magi_world.training.heads import FitHeadsConfig
from magi_world.training.judge import ClassifierConfig
from magi_world.training.phrases import CommandConfig, worded
from magi_world.training.rollout import EvaluateConfig
from magi_world.training.text import TextConfig

TEXT_CHANNELS = 96
LATENT_CHANNELS = 64
HISTORY = 4  # clean chunks that a chunk sees
CLIP = 8  # chunks of a training clip
PATCH_LENGTH = 4  # frames in one latent frame


def _at(values: Any, *path: str) -> Any:
    """What lies at ``path``, or None."""
    for name in path:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def _or(value: Any, kind: type, other: Any) -> Any:
    """``value`` if it is a sensible one of ``kind``; the checks name what is not."""
    return value if isinstance(value, kind) and not isinstance(value, bool) and value else other


def patch_length(frames: int) -> int:
    """Frames in one latent frame: the most, up to 4, that divides a chunk."""
    return max(n for n in range(1, PATCH_LENGTH + 1) if frames % n == 0)


def loop(steps: int, batch: int, muon: float, adam: float, ema: float) -> dict[str, Any]:
    """How a stage is optimised."""
    return {
        "steps": steps,
        "batch": batch,
        "muon_lr": muon,
        "adam_lr": adam,
        "warmup": max(1, min(60, steps // 20)),
        "decay": 0.7,
        "ema": ema,
    }


def default_sections(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The defaults of every section, for a file with ``values`` whose name is ``name``."""
    actions = _or(_at(values, "record", "actions"), Mapping, {})
    commands = [str(c) for c in actions]
    frames = _or(_at(values, "record", "frames_per_chunk"), int, 8)
    size = _or(_at(values, "record", "frame_size"), list, [64, 64])
    side = max((s for s in size if isinstance(s, int)), default=64)
    patch = _or(_at(values, "codec", "vae", "patch_length"), int, patch_length(frames))
    given_vae, given_dit = _at(values, "codec", "vae"), _at(values, "dynamics", "dit")
    latent = _or(_at(given_vae, "latent_channels"), int, None) or _or(
        _at(given_dit, "latent_channels"), int, LATENT_CHANNELS
    )
    words = _or(_at(values, "text", "channels"), int, TEXT_CHANNELS)
    history = _or(_at(values, "dynamics", "history"), int, HISTORY)
    shift = _or(_at(values, "dynamics", "shift"), Real, 3.0)
    events = [str(e) for e in _or(_at(values, "record", "events"), Mapping, {})]
    death = _or(_at(values, "heads", "death"), str, "death")
    predicted = _or(_at(values, "heads", "events"), list, [death])
    return {
        "name": name,
        "record": {"actions": actions},
        "commands": worded(commands),
        "text": {"channels": TEXT_CHANNELS, "pieces": 9000},
        "codec": {
            "vae": {
                "width": 192,
                "depth": 3,
                "heads": 6,
                "latent_channels": latent,
                "patch_length": patch,
                "video_size": side,
                "video_length": frames,
                "final_proj": True,
                "scale_factor": 1.0,
            },
            "loop": loop(400, 16, 0.002, 0.0003, 0.98),
            "decoder": loop(300, 16, 0.001, 0.0001, 0.98),
        },
        "dynamics": {
            "dit": {
                "layers": 6,
                "hidden": 256,
                "ffn": 1024,
                "heads": 8,
                "kv_groups": 8,
                "head_dim": 32,
                "latent_channels": latent,
                "caption_channels": words,
                "caption_length": 64,
                "prediction": "clean",
                "condition": "caption",
            },
            "loop": {**loop(6000, 4, 0.004, 0.001, 0.995), "decay": 0.3},
            "chunks": CLIP,
            "copies": 3,
            "until": 0.9375,  # where the last of 16 steps begins
            "history": HISTORY,
        },
        "distill": {"loop": loop(400, 4, 0.001, 0.0003, 0.99), "num_steps": [4, 8]},
        "heads": {
            "loop": loop(800, 128, 0.001, 0.001, 0.98),
            "events": [*events, death],
            "reward": "environment",
            "end": death if death in predicted else "",
        },
        "classifier": {"loop": loop(400, 64, 0.002, 0.002, 0.98)},
        "sampler": {
            "num_steps": 4,
            "window_size": 1,
            "chunk_width": max(1, frames // patch),
            "passes": 1,
            "distilled": True,
            "kv_range": [history + 1],
            "clean_kv_range": 1,
            "solo_weight": 0.0,
            "shift": shift,
        },
    }


Found = Iterator[tuple[str, str]]


def disagreements(sections: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Everything that does not fit, as (place, text).

    Args:
        sections: name of a field of `magi_world.training.settings.WorldTrainConfig` -> its value;
            those that could not be read may be missing.
    """
    found: list[tuple[str, str]] = []
    for rule in RULES:
        needed = inspect.signature(rule).parameters
        if all(name in sections for name in needed):
            found += rule(**{name: sections[name] for name in needed})
    return found


def _commands(record: Any, commands: Any) -> Found:
    actions = list(record.actions)
    if len(actions) < 2:
        yield "record.actions", f"record.actions is {actions}; a world needs two commands or more"
    for name in [c for c in commands if c not in actions]:
        yield f"commands.{name}", f"command {name!r} is none of record.actions, {actions}"
    if lacking := [a for a in actions if a not in commands]:
        yield "commands", f"commands lacks {lacking}, which record.actions has"
    elif not set(commands) - set(actions) and list(commands) != actions:
        yield (
            "commands",
            f"commands are {list(commands)}; they must be those of record.actions in the same "
            f"order, {actions}",
        )


def _phrases(commands: Any) -> Found:
    said: dict[str, str] = {}
    for name, command in commands.items():
        for phrase in dict.fromkeys((name, *command.phrases, *command.held_out)):
            other = said.setdefault(" ".join(phrase.lower().split()), name)
            if other != name:
                yield (
                    f"commands.{name}",
                    f"the phrasing {phrase!r} of {name!r} is one of {other!r} too",
                )


def _default_command(default_command: str, commands: Any) -> Found:
    if default_command not in ("", *commands):
        yield (
            "default_command",
            f"default_command is {default_command!r}; it must be one of {list(commands)}",
        )


def _twins(record: Any) -> Found:
    for name in record.actions if record.mirror else ():
        twin = mirror_command(name, record.mirror)
        if twin not in record.actions:
            yield (
                f"record.actions.{name}",
                f"record.mirror makes {twin!r} of {name!r}, which record.actions lacks; add it, or "
                "delete record.mirror",
            )


def _chunk(record: Any, codec: Any, sampler: Any) -> Found:
    patch = codec.vae.patch_length
    if sampler.chunk_width * patch != record.frames_per_chunk:
        yield (
            "sampler.chunk_width",
            f"sampler.chunk_width is {sampler.chunk_width}; times codec.vae.patch_length ({patch}) "
            f"it must be record.frames_per_chunk ({record.frames_per_chunk})",
        )


def _model(record: Any, codec: Any, dynamics: Any, sampler: Any) -> Found:
    try:
        MagiConfig("world", dynamics.dit, codec.vae, sampler, record.frame_size, dtype="float32")
    except ValueError as error:
        place = "record.frame_size" if "frame_size" in str(error) else "dynamics.dit"
        yield place, str(error).replace("MagiConfig.frame_size", "record.frame_size")


def _latents(codec: Any) -> Found:
    if codec.vae.scale_factor != 1.0:
        yield (
            "codec.vae.scale_factor",
            f"codec.vae.scale_factor is {codec.vae.scale_factor}; latents are equalised in the "
            "weights, so it must be 1.0",
        )


def _caption(text: Any, dynamics: Any) -> Found:
    dit: DiTConfig = dynamics.dit
    if dit.caption_channels != text.channels:
        yield (
            "dynamics.dit.caption_channels",
            f"dynamics.dit.caption_channels is {dit.caption_channels}; it must be text.channels "
            f"({text.channels})",
        )


def _history(dynamics: Any, sampler: Any) -> Found:
    if dynamics.history != sampler.history:
        yield (
            "sampler.kv_range",
            f"sampler.kv_range is {list(sampler.kv_range)}, that is {sampler.history} clean "
            f"chunks; it must be [{dynamics.history + 1}], one more than dynamics.history",
        )


def _shift(dynamics: Any, sampler: Any) -> Found:
    if dynamics.shift != sampler.shift:
        yield (
            "sampler.shift",
            f"sampler.shift is {sampler.shift}; it must be dynamics.shift ({dynamics.shift}), so "
            "that the times that are sampled are those that were learnt",
        )


def _often(record: Any, dynamics: Any) -> Found:
    for name, known in (("often", record.events), ("weigh", {**record.events, **record.actions})):
        if unknown := sorted(set(getattr(dynamics, name)) - set(known)):
            yield (
                f"dynamics.{name}",
                f"dynamics.{name} has {unknown}; of this recording it may have {list(known)}",
            )


def _clips(record: Any, dynamics: Any) -> Found:
    for name in ("max_chunks_per_episode", "chunks_per_shard"):
        if dynamics.chunks > getattr(record, name):
            yield (
                "dynamics.chunks",
                f"dynamics.chunks is {dynamics.chunks}; clips lie within an episode, so it must "
                f"not exceed record.{name} ({getattr(record, name)})",
            )


def _events(record: Any, heads: Any) -> Found:
    known = [*record.events, heads.death]
    for name in heads.events:
        if name not in known:
            yield "heads.events", f"heads.events names {name!r}; recorded are {known}"
    if heads.death in record.events:
        yield "heads.death", f"heads.death is {heads.death!r}, which is a recorded event's name"


def _starts(
    record: Any, starts_before: str, starts: int, start_chunks: int, best_start: int | None
) -> Found:
    if starts_before not in ("", *record.events):
        yield (
            "starts_before",
            f"starts_before is {starts_before!r}; it must be '' or one of {list(record.events)}",
        )
    for name, value in (("starts", starts), ("start_chunks", start_chunks)):
        if value < 1:
            yield name, f"{name} is {value}; it must be at least 1"
    if best_start is not None and not 0 <= best_start < starts:
        yield "best_start", f"best_start is {best_start}; it must be 0 .. {starts - 1}"


def _held_out(record: Any) -> Found:
    if record.held_out_shards < 1:
        yield (
            "record.held_out_shards",
            f"record.held_out_shards is {record.held_out_shards}; figures need at least 1",
        )


def _evaluation(evaluate: Any) -> Found:
    for name in ("clips", "worlds"):
        if getattr(evaluate, name) < 1:
            yield (
                f"evaluate.{name}",
                f"evaluate.{name} is {getattr(evaluate, name)}; it must be at least 1",
            )


RULES: Sequence[Callable[..., Found]] = (
    _commands,
    _phrases,
    _default_command,
    _twins,
    _chunk,
    _model,
    _latents,
    _caption,
    _history,
    _shift,
    _often,
    _clips,
    _events,
    _starts,
    _held_out,
    _evaluation,
)


@dataclass(frozen=True)
class WorldTrainConfig:
    """Everything that turns a simulator into a world package.

    fps: frames a second at which the world plays. starts, start_chunks: real start videos shipped,
    and their length; starts_before: a recorded event that comes soon after each, '' = any clip;
    best_start: number of the one to open with, None = the one with the most to see.
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
    best_start: int | None = None
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
    source = read_yaml(path)
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
    values = merged(source.values, defaults)
    config = read(WorldTrainConfig, values, (), source)
    if config is FAILED:
        # What could be built is still held against the rest.
        for where, text in disagreements(_sections(values, source)):
            source.wrong(tuple(where.split(".")), text)
    source.done()
    made: WorldTrainConfig = config
    return made


def _sections(values: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """Those fields that can be built, by name; says nothing of the others."""
    hints, quiet = get_type_hints(WorldTrainConfig), replace(source, found=[])
    built = {
        f.name: read(hints[f.name], values[f.name], (f.name,), quiet)
        if f.name in values
        else f.default
        if f.default_factory is MISSING
        else f.default_factory()
        for f in fields(WorldTrainConfig)
    }
    return {name: one for name, one in built.items() if one is not FAILED and one is not MISSING}


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
