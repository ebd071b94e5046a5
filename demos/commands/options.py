"""What the fields of commands are made of; tyro makes the command line of them.

    @dataclass(frozen=True, kw_only=True)
    class Bench(Command):
        '''One line for the list of commands.

        More, for the command's own help.
        '''

        chunks: Count = option("the help of --chunks", 40)

        def run(self) -> int: ...

`tyro.conf.Positional` is for what is typed without a name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg
from tyro.constructors import PrimitiveConstructorSpec

if TYPE_CHECKING:
    from magi_world.world.world import World

T = TypeVar("T")


def reads(kind: Callable[..., Any], metavar: str, *counts: int) -> PrimitiveConstructorSpec[Any]:
    """How a value is read; ``kind`` raises ValueError.    counts: words it may have, else one."""
    return PrimitiveConstructorSpec(
        nargs=counts or 1,
        metavar=metavar,
        instance_from_str=lambda words: kind(*words),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)],
    )


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def size(text: str) -> tuple[int, int]:
    """HEIGHTxWIDTH."""
    height, _, width = text.lower().partition("x")
    try:
        return count(height), count(width)
    except ValueError:
        raise ValueError(f"{text!r} is not HEIGHTxWIDTH, e.g. 480x832") from None


def file(text: str) -> Path:
    """A path, ~ resolved."""
    return Path(text).expanduser()


# A default that is nothing needs no word in the help.
_HINT = arg(
    help_behavior_hint=lambda told: "" if told in ("None", "False", "") else f"(default: {told})"
)
Opt = Annotated[T | None, _HINT]
Switch = Annotated[bool, FlagCreatePairsOff, _HINT]
Several = UseAppendAction[tuple[T, ...]]  # may be given several times
Count = Annotated[int, reads(count, "N")]
OptCount = Annotated[int | None, reads(count, "N"), _HINT]
File = Annotated[Path, reads(file, "PATH")]
OptFile = Annotated[Path | None, reads(file, "PATH"), _HINT]
Words = Annotated[Positional[tuple[str, ...]], _HINT]
Output = arg(aliases=["-o"])
DEVICE = "cpu, cuda, cuda:1, ...; default: the GPU if there is one"


def option(told: str, default: Any = None) -> Any:
    """A field and its help: tyro would find a comment as well, but reads the source for that."""
    return field(default=default, metadata={"help": told})


def required(told: str) -> Any:
    """`option` without a default."""
    return field(metadata={"help": told})


@dataclass(frozen=True, kw_only=True)
class Command:
    """What was typed for one command."""

    def run(self) -> int:
        """Do it; the exit status."""
        raise NotImplementedError

    def shared(self, kind: type[Any]) -> dict[str, Any]:
        """The options that ``kind``, a dataclass, has too."""
        known = {f.name for f in fields(kind)}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in known}


_LOADING = (
    "weights", "text_features", "text_device", "device", "dtype", "steps", "window", "size",
    "attention",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class JsonOption(Command):
    """For commands that scripts call."""

    json: Switch = option("print one JSON object, nothing else", False)


@dataclass(frozen=True, kw_only=True)
class WorldOptions:
    """How a world is loaded."""

    weights: Opt[str] = option("folder of the released MAGI-1 weights, for magi-1-...")
    text_features: Opt[str] = option("file of saved captions for magi-1-..., instead of T5")
    text_device: Opt[str] = option("where T5 runs; default: as --device")
    device: Opt[str] = option(DEVICE)
    dtype: Opt[Literal["float32", "bfloat16"]] = option("default: the world's own")
    steps: OptCount = option("denoising steps a chunk")
    window: OptCount = option("chunks in flight")
    size: Annotated[tuple[int, int] | None, reads(size, "HxW"), _HINT] = option("of the frames")
    attention: Opt[str] = option("auto, sdpa, flash, flash2, ...")
    history: OptCount = option("chunks of the past in sight")
    sink: OptCount = option("of them the first of the video")
    history_place: Opt[str] = option("card, host or a folder, for what is old of it")
    parallel: Opt[str] = option(
        "one world over the N processes of torchrun; auto: all of them; PxR: P stages of layers x "
        "R ranks"
    )
    threads: OptCount = option("threads of the CPU")

    def open_world(
        self,
        name: str,
        num_worlds: int = 1,
        num_steps: int | None = None,
        window_size: int | None = None,
        frame_size: tuple[int, int] | None = None,
        noise_scale: float | None = None,
    ) -> World:
        """Load a world; what was typed goes before the arguments.
        Raises ValueError, FileNotFoundError: as `load_world`.
        """
        from magi_world.loading import load_world

        same = ("dtype", "weights", "attention", "threads", "history", "sink", "history_place")
        given: dict[str, Any] = {
            "device": known_device(self.device),
            "num_steps": self.steps or num_steps,
            "window_size": self.window or window_size,
            "frame_size": self.size or frame_size,
            "captions": self.text_features,
            "text_device": known_device(self.text_device),
            "noise_scale": noise_scale,
            "parallel": self.parallel or started_together(),
            **{field: getattr(self, field) for field in same},
        }
        return load_world(name, num_worlds, **{k: v for k, v in given.items() if v is not None})

    def nothing_to_load(self, instead: str) -> None:
        """Raise ValueError where an option was given that only loading a world here obeys."""
        for name in _LOADING:
            if (value := getattr(self, name)) is not None:
                raise ValueError(
                    f"--{name.replace('_', '-')} {value} is for a world that is loaded here; with "
                    f"{instead} the server has chosen it already, so leave it out"
                )


def started_together() -> str | None:
    """ "auto" where torchrun started this process, so that it need not be said twice."""
    return "auto" if "TORCHELASTIC_RUN_ID" in os.environ else None


def follows() -> bool:
    """Whether torchrun started this process to work for rank 0, and not to talk to anybody."""
    return started_together() is not None and os.environ.get("RANK", "0") != "0"


def known_device(name: str | None) -> str | None:
    """The device, if there is one of that name. Raises ValueError: there is none."""
    import torch

    if name is None:
        return None
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name} cannot be used here: {reason}") from error
    return name


def default_world() -> str:
    """The world that is meant when none is named. Raises ValueError: no world is installed."""
    from magi_world.loading import DEFAULT_WORLD, list_worlds

    names = list_worlds()
    if not names:
        raise ValueError("no world is installed; name the folder of one")
    return DEFAULT_WORLD if DEFAULT_WORLD in names else names[0]


def print_json(record: object) -> None:
    print(json.dumps(record, ensure_ascii=False, default=str))
