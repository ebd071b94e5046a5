"""What ``reset(options=...)`` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from magi_world.envs.config import EnvConfig, scenes_per_world
from magi_world.envs.starts import Begin, StartLike, read_file, read_start
from magi_world.envs.state import EnvSnapshot, load_snapshot
from magi_world.world.snapshot import Snapshot
from magi_world.world.world import World

MAX_SEED = 2**31
NAMES = ("prompt", "start", "image", "video", "snapshot")
IGNORED = "lerobot_"  # what LeRobot tells its own wrappers comes through to everybody


@dataclass(frozen=True, eq=False)
class ResetOptions:
    """Options that were checked, for n worlds.

    prompts, begins: one per world, or None where the constructor's are to be used.
    """

    prompts: list[str | None] | None = None
    begins: list[Begin] | None = None
    snapshot: EnvSnapshot | Snapshot | None = None

    def scenes(
        self, config: EnvConfig, begins: Sequence[Begin]
    ) -> tuple[list[str | None], list[Begin]]:
        """The prompt and start of every world; ``begins`` are the constructor's."""
        count = len(begins)
        prompts = self.prompts or scenes_per_world(config.prompt, count)
        return prompts, self.begins or list(begins)


def read_options(
    world: World, options: Mapping[str, Any] | None, count: int, extra: Sequence[str] = ()
) -> ResetOptions:
    """Check the options of a reset.

    Args:
        count: worlds there are.
        extra: further options, which the caller reads.

    What begins with "lerobot_" is passed over: LeRobot's loop marks its rollouts so.

    Raises:
        ValueError: an unknown option, two starts at once, or a value that cannot be.
        FileNotFoundError: a file that is not there.
    """
    if options is None:
        return ResetOptions()
    if not isinstance(options, Mapping):
        raise ValueError(f"options is {options!r:.80}; it must be a dict, or None")
    for name in options:
        strange = name not in (*NAMES, *extra)
        if strange and not str(name).startswith(IGNORED):
            known = ", ".join((*NAMES, *extra))
            raise ValueError(f"options has {name!r:.40}; it may have {known}")
    given = [name for name in NAMES[1:] if options.get(name) is not None]
    if len(given) > 1:
        raise ValueError(f"options has {' and '.join(given)}; an episode starts from one of them")
    prompts = None
    if options.get("prompt") is not None:
        if given == ["snapshot"]:
            raise ValueError("options has prompt and snapshot; a snapshot has its own prompt")
        prompts = scenes_per_world(options["prompt"], count)
    if not given:
        return ResetOptions(prompts)
    value = options[given[0]]
    if given == ["snapshot"]:
        return ResetOptions(snapshot=_snapshot(value))
    return ResetOptions(prompts, _begins(world, given[0], value, count))


def starts_per_world(world: World, value: Any, count: int) -> list[Begin]:
    """The start of each world: one for all, or a list with one for each.

    Raises:
        As `magi_world.envs.starts.read_start`.
    """
    return _begins(world, "start", value, count)


def _begins(world: World, name: str, value: Any, count: int) -> list[Begin]:
    if isinstance(value, list | tuple):
        if len(value) != count:
            raise ValueError(f"{name} has {len(value)} entries, but there are {count} worlds")
        return [_one(world, name, v) for v in value]
    return [_one(world, name, value)] * count


def _one(world: World, name: str, value: StartLike) -> Begin:
    if name == "start":
        return read_start(world, value)
    return read_file(world, value, "image" if name == "image" else "video", name)


def _snapshot(value: Any) -> EnvSnapshot | Snapshot:
    if isinstance(value, str | Path):
        return load_snapshot(value)
    if isinstance(value, EnvSnapshot | Snapshot):
        return value
    raise ValueError(
        f"snapshot is a {type(value).__name__}; it must be an EnvSnapshot, a Snapshot, or the file "
        "of one"
    )


def reset_mask(value: Any, count: int) -> list[int]:
    """Rows that ``options["reset_mask"]`` chooses; all without one.

    Raises:
        TypeError: no array.
        ValueError: no array of ``count`` bools, or none of them is True.
    """
    if value is None:
        return list(range(count))
    right = f"it must be a bool array of shape ({count},)"
    if not isinstance(value, np.ndarray):
        raise TypeError(f"reset_mask is a {type(value).__name__}; {right}")
    if value.shape != (count,) or value.dtype != np.bool_:
        raise ValueError(f"reset_mask is {value.dtype} of shape {value.shape}; {right}")
    if not value.any():
        raise ValueError("reset_mask is all False; it must choose at least one world")
    return [int(row) for row in np.flatnonzero(value)]
