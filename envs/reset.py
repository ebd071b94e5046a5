"""How an episode begins: what ``reset(seed=..., options=...)`` takes, and the starts that it means.

Shapes: T video frames, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from magi_world.checks import check_prompt
from magi_world.envs.spaces import is_int
from magi_world.envs.state import EnvSnapshot, joined, load_snapshot
from magi_world.io.media import fit
from magi_world.session.events import StartFile
from magi_world.session.player import start_pixels
from magi_world.world.chunk import Chunk
from magi_world.world.snapshot import Snapshot
from magi_world.world.world import World

NAMES = ("prompt", "start", "image", "video", "snapshot")
IGNORED = "lerobot_"  # what LeRobot tells its own wrappers comes through to everybody
VIDEO_SUFFIXES = frozenset((".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".gif"))
StartLike = int | str | Path | np.ndarray | None


@dataclass(frozen=True, eq=False)
class EpisodeStart:
    """A start that was read and fits the world.

    start: as `World.reset` has it.
    frames: (H, W, 3) or (T, H, W, 3) uint8 of the world's size; None where `start` says it all.
    file: where the frames come from, if from a file.
    """

    start: int | Literal["text"] | None = None
    frames: np.ndarray | None = None
    file: StartFile | None = None

    def arguments(self) -> dict[str, Any]:
        """For `World.reset`."""
        if self.frames is None:
            return {"start": self.start}
        return {"image" if self.frames.ndim == 3 else "video": self.frames}


@dataclass(frozen=True, eq=False)
class ResetOptions:
    """Options that were checked, for n worlds.

    prompts, starts: one per world, or None where the constructor's are to be used.
    """

    prompts: list[str | None] | None = None
    starts: list[EpisodeStart] | None = None
    snapshot: EnvSnapshot | Snapshot | None = None


def read_options(
    world: World, options: Mapping[str, Any] | None, count: int, extra: Sequence[str] = ()
) -> ResetOptions:
    """Check the options of a reset of ``count`` worlds; the caller reads the ``extra`` ones.

    What begins with "lerobot_" is passed over: LeRobot's loop marks its rollouts so.

    Raises:
        ValueError: an unknown option, two starts at once, or a value that cannot be.
        FileNotFoundError: a file that is not there.
    """
    if options is None:
        return ResetOptions()
    if not isinstance(options, Mapping):
        raise ValueError(f"options is {options!r:.80}; it must be a dict, or None")
    known = (*NAMES, *extra)
    for name in options:
        if name not in known and not str(name).startswith(IGNORED):
            raise ValueError(f"options has {name!r:.40}; it may have {', '.join(known)}")
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
    if given != ["snapshot"]:
        return ResetOptions(prompts, starts_per_world(world, value, count, given[0]))
    if isinstance(value, str | Path):
        value = load_snapshot(value)
    check_snapshot(value)
    return ResetOptions(snapshot=value)


def check_snapshot(value: object) -> None:
    """Raise ValueError unless it is a snapshot of an environment or of a world."""
    if not isinstance(value, EnvSnapshot | Snapshot):
        raise ValueError(
            f"snapshot is a {type(value).__name__}; it must be an EnvSnapshot, a Snapshot, or the "
            "file of one"
        )


def scenes_per_world(prompt: Any, count: int) -> list[str | None]:
    """The prompt of each world; None is the world's own.

    Raises:
        ValueError: the wrong number of prompts, or one that cannot be read.
    """
    several = isinstance(prompt, list | tuple | np.ndarray)
    prompts = list(prompt) if several else [prompt] * count
    if len(prompts) != count:
        raise ValueError(f"prompt has {len(prompts)} entries, but there are {count} worlds")
    return [None if p is None else check_prompt(p) for p in prompts]


def whole_seed(seed: object) -> int | None:
    """A seed as Gymnasium takes it, from any kind of whole number.

    Raises:
        ValueError: it is negative, or no whole number.
    """
    if seed is None:
        return None
    if not is_int(seed) or seed < 0:  # type: ignore[operator]
        raise ValueError(f"seed is {seed!r}; it must be a whole number from 0, or None")
    return int(seed)  # type: ignore[call-overload]


def seeds_per_world(seed: object, count: int) -> list[int | None]:
    """One number for all gives seed, seed + 1, ...; None gives None to each.

    Raises:
        ValueError: the wrong number of seeds, or one that is none.
    """
    several = isinstance(seed, Sequence | np.ndarray) and not isinstance(seed, str)
    values: list[Any] = list(seed) if several else [seed] * count  # type: ignore[call-overload]
    if len(values) != count:
        raise ValueError(f"seed has {len(values)} entries, but there are {count} worlds")
    for value in values:
        if value is not None and not (is_int(value) and value >= 0):
            raise ValueError(
                f"seed is {value!r}; it must be a whole number from 0, one per world, or None"
            )
    step = 0 if several else 1
    return [None if v is None else int(v) + i * step for i, v in enumerate(values)]


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


def starts_per_world(
    world: World, value: Any, count: int, name: str = "start"
) -> list[EpisodeStart]:
    """The start of each world: one for all, or a list with one for each.

    Args:
        name: "start", or "image" or "video" for a file or array of that kind alone.

    Raises:
        As `read_start`.
    """

    def one(single: Any) -> EpisodeStart:
        if name == "start":
            return read_start(world, single)
        return _from_frames(world, single, "image" if name == "image" else "video", name)

    if not isinstance(value, list | tuple):
        return [one(value)] * count
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} entries, but there are {count} worlds")
    return [one(single) for single in value]


def read_start(world: World, value: StartLike) -> EpisodeStart:
    """Make a start ready.

    Args:
        value: None (the seed picks one of the world's own), a number of one of them, "text" (none
            at all), an image or video file, or frames (H, W, 3) or (T, H, W, 3) uint8. Pictures of
            another size are scaled and cut.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: anything else that cannot be a start.
    """
    count = world.spec.num_starts
    own = f"a number 0 .. {count - 1}, " if count else ""
    right = f"{own}'text', an image or video file, or a uint8 array"
    if value is None or (isinstance(value, str) and value == "text"):
        return EpisodeStart("text" if value else None)
    if is_int(value):
        if not 0 <= value < count:  # type: ignore[operator]
            raise ValueError(f"start is {value}; it must be {right}")
        return EpisodeStart(int(value))  # type: ignore[arg-type]
    if isinstance(value, str | Path | np.ndarray):
        return _from_frames(world, value, None, "start")
    raise ValueError(f"start is {value!r:.80}, a {type(value).__name__}; it must be {right}")


def _from_frames(
    world: World, value: Any, kind: Literal["image", "video"] | None, name: str
) -> EpisodeStart:
    """An image or video, from a file or an array; None tells the kind by suffix or axes."""
    if isinstance(value, np.ndarray):
        axes = {"image": (3,), "video": (4,), None: (3, 4)}[kind]
        if value.ndim not in axes:
            image, video = "(H, W, 3)", "(T, H, W, 3)"
            either = f"{image} for an image or {video} for a video"
            right = {"image": image, "video": video, None: either}[kind]
            raise ValueError(f"{name} has shape {value.shape}; it must be {right}")
        try:
            return EpisodeStart(frames=fit(value, world.spec.frame_size))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if not isinstance(value, str | Path):
        raise ValueError(
            f"{name} is {value!r:.80}, a {type(value).__name__}; it must be a file or a uint8 array"
        )
    if kind is None:
        kind = "video" if Path(value).suffix.lower() in VIDEO_SUFFIXES else "image"
    frames = start_pixels(kind, value, world)
    return EpisodeStart(frames=frames, file=StartFile.of(value, kind))


def begin_episodes(
    world: World,
    rows: Sequence[int],
    seeds: Sequence[int],
    prompts: Sequence[str | None],
    starts: Sequence[EpisodeStart],
) -> Chunk:
    """Reset some worlds, each with its own seed, prompt and start; the chunk has their rows."""
    groups: dict[int, list[int]] = {}
    for place, one in enumerate(starts):
        groups.setdefault(id(one), []).append(place)
    chunks, order = [], []
    for places in groups.values():
        scenes: Any = [prompts[i] for i in places]
        chunk = world.reset(
            [seeds[i] for i in places],
            scenes,
            worlds=[rows[i] for i in places],
            **starts[places[0]].arguments(),
        )
        chunks.append(chunk)
        order += places
    if len(chunks) == 1:
        return chunks[0]
    return joined(chunks, sorted(range(len(order)), key=lambda k: order[k]))


def check_shown(snapshot: Snapshot, rows: Sequence[int]) -> None:
    """Raise ValueError unless the last chunk of these worlds can be decoded from the snapshot."""
    for row in rows:
        prompt = snapshot.prompts[row] if row < snapshot.num_worlds else None
        if prompt is not None and prompt.steps == 0 and not snapshot.state.rows[row].clean_pending:
            raise ValueError(
                "snapshot was taken right after a reset and holds no frames of its start; take it "
                "with env.unwrapped.snapshot(), or after a step"
            )
