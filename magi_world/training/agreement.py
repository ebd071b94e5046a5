"""What the sections of a configuration must agree on, so that no stage fails after hours.

Each rule looks at the sections it needs and says what is wrong as (place in the file, text). A rule
whose sections could not be read is skipped: their own mistakes are told first.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from magi_world.config import DiTConfig, MagiConfig

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
    swap = dict(record.mirror)
    if not swap:
        return
    both = {**swap, **{b: a for a, b in swap.items()}}
    for name in record.actions:
        twin = " ".join(both.get(word, word) for word in name.split(" "))
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


def _head_sizes(record: Any, codec: Any, heads: Any) -> Found:
    sides = [s // codec.vae.patch_size for s in record.frame_size]
    if heads.predicted and any(s % 2 for s in sides):
        unit = 2 * codec.vae.patch_size
        yield (
            "record.frame_size",
            f"record.frame_size is {list(record.frame_size)}; with heads both sides must be "
            f"divisible by {unit}",
        )


def _starts(record: Any, starts_before: str, starts: int, start_chunks: int) -> Found:
    if starts_before not in ("", *record.events):
        yield (
            "starts_before",
            f"starts_before is {starts_before!r}; it must be '' or one of {list(record.events)}",
        )
    for name, value in (("starts", starts), ("start_chunks", start_chunks)):
        if value < 1:
            yield name, f"{name} is {value}; it must be at least 1"


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
    _clips,
    _events,
    _head_sizes,
    _starts,
    _held_out,
    _evaluation,
)
