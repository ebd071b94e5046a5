"""Options of commands: each is said once, as the field of a dataclass, which makes the parser.

    @dataclass(frozen=True, kw_only=True)
    class Bench(Command):
        command, told, about = "bench", "one line for the list", "what its own help begins with"
        chunks: int = option("to measure", 40, count, "N")

        def run(self) -> int: ...

Why not a library: the command line is the same as ever, its messages too, and help has to come
without loading torch; argparse with these few lines does that.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

if TYPE_CHECKING:
    from magi_world.world.world import World

T = TypeVar("T")


def option(
    told: str = "",
    default: Any = None,
    kind: Callable[[str], Any] = str,
    metavar: str | None = None,
    *names: str,
    group: str = "",
    more: Mapping[str, Any] | None = None,
) -> Any:
    """An option --like-its-field, or called ``names``; False as ``default`` makes it a switch.

    A default that is a number or a word is told in the help.

    Args:
        kind: reads the text, or raises argparse.ArgumentTypeError.
        group: heading under which help lists it.
        more: of `argparse.ArgumentParser.add_argument`.
    """
    shown = f"({default:g})" if type(default) in (int, float) else f"({default})"
    if type(default) in (int, float, str):
        told = f"{told} {shown}".strip()
    given: dict[str, Any] = {"help": told, "default": default, **(more or {})}
    if default is False and more is None:
        given["action"] = "store_true"
    elif "action" not in given or given["action"] == "append":
        given |= {"type": kind, "metavar": metavar}
    return field(default=default, metadata={"given": given, "names": names, "group": group})


def choice(told: str, default: Any, *values: str, group: str = "") -> Any:
    """One of a few words."""
    return option(told, default, group=group, more={"choices": values})


def several(
    told: str,
    kind: Callable[[str], Any],
    metavar: str,
    *names: str,
    group: str = "",
    required: bool = False,
) -> Any:
    """An option that may be given several times."""
    more = {"action": "append", "required": required, "default": []}
    return option(told, (), kind, metavar, *names, group=group, more=more)


def argument(
    metavar: str,
    told: str = "",
    kind: Callable[[str], Any] = str,
    count: str | None = None,
    choices: Sequence[str] | None = None,
) -> Any:
    """What is typed without a name.    count: "?" may be left out, "*" is any number."""
    given = {"metavar": metavar, "help": told, "type": kind, "nargs": count, "choices": choices}
    return field(default=None, metadata={"given": given, "names": None, "group": ""})


@dataclass(frozen=True, kw_only=True)
class Command:
    """What was typed for one command.

    command: its name.    told: one line about it.    about: what its help begins with.
    after: what its help ends with, laid out as it is.
    """

    command: ClassVar[str]
    told: ClassVar[str]
    about: ClassVar[str]
    after: ClassVar[str] = ""

    def run(self) -> int:
        """Do it; the exit status."""
        raise NotImplementedError

    @classmethod
    def declare(cls, commands: Any) -> None:
        """Make its parser; ``commands`` is what ArgumentParser.add_subparsers returns."""
        parser: argparse.ArgumentParser = commands.add_parser(
            cls.command, help=cls.told, description=cls.about, epilog=cls.after or None,
            formatter_class=argparse.RawDescriptionHelpFormatter if "\n" in cls.after
            else argparse.HelpFormatter,
        )  # fmt: skip
        groups: dict[str, Any] = {"": parser}
        for one in _own_first(cls):
            if "given" not in one.metadata:
                continue
            group, names = one.metadata["group"], one.metadata["names"]
            if group not in groups:
                groups[group] = parser.add_argument_group(group)
            given = dict(one.metadata["given"])
            if names is None:
                groups[group].add_argument(one.name, **given)
            else:
                long = names or ("--" + one.name.replace("_", "-"),)
                groups[group].add_argument(*long, dest=one.name, **given)
        parser.set_defaults(kind=cls)

    @classmethod
    def of(cls: type[T], given: argparse.Namespace) -> T:
        """What argparse read."""
        values = {f.name: getattr(given, f.name) for f in fields(cls)}  # type: ignore[arg-type]
        return cls(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})

    def shared(self, kind: type[Any]) -> dict[str, Any]:
        """The options that ``kind``, a dataclass, has too."""
        known = {f.name for f in fields(kind)}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in known}


def _own_first(cls: type[Any]) -> list[Field[Any]]:
    """The fields of a class before those that it shares with others."""
    known = {f.name: f for f in fields(cls)}
    order = dict.fromkeys(n for base in cls.__mro__ for n in vars(base).get("__annotations__", ()))
    return [known[name] for name in order if name in known]


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def size(text: str) -> tuple[int, int]:
    """HEIGHTxWIDTH."""
    height, _, width = text.lower().partition("x")
    try:
        return count(height), count(width)
    except argparse.ArgumentTypeError:
        message = f"{text!r} is not HEIGHTxWIDTH, e.g. 480x832"
        raise argparse.ArgumentTypeError(message) from None


def file(text: str) -> Path:
    """A path, ~ resolved."""
    return Path(text).expanduser()


DEVICE = "cpu, cuda, ...; default: the GPU if there is one"
_LOADING = (
    "weights", "text_features", "text_device", "device", "dtype", "steps", "window", "size",
    "attention",
)  # fmt: skip
_WORLD = "the world"


@dataclass(frozen=True, kw_only=True)
class JsonOption(Command):
    """For commands that scripts call."""

    json: bool = option("print one JSON object, nothing else", False)


@dataclass(frozen=True, kw_only=True)
class WorldOptions(Command):
    """How a world is loaded."""

    weights: str | None = option(
        "folder of the released MAGI-1 weights, for magi-1-...", metavar="DIR", group=_WORLD
    )
    text_features: str | None = option(
        "saved captions for magi-1-..., instead of T5", metavar="FILE", group=_WORLD
    )
    text_device: str | None = option("where T5 runs; default: as --device", group=_WORLD)
    device: str | None = option(
        "cpu, cuda, cuda:1, ...; default: the GPU if there is one", group=_WORLD
    )
    dtype: Literal["float32", "bfloat16"] | None = choice(
        "default: the world's own", None, "float32", "bfloat16", group=_WORLD
    )
    steps: int | None = option("denoising steps a chunk", None, count, "N", group=_WORLD)
    window: int | None = option("chunks in flight", None, count, "N", group=_WORLD)
    size: tuple[int, int] | None = option(
        "height x width of the frames", None, size, "HxW", group=_WORLD
    )
    attention: str | None = option("auto, sdpa, flash, flash2, ...", metavar="KERNEL", group=_WORLD)
    history: int | None = option("chunks of the past in sight", None, count, "N", group=_WORLD)
    sink: int | None = option("of them the first of the video", None, count, "N", group=_WORLD)
    history_place: str | None = option(
        "card, host or a folder, for what is old of it", metavar="P", group=_WORLD
    )
    parallel: str | None = option(
        "one world over the N processes of torchrun; auto: all of them; PxR: P stages of layers x "
        "R ranks", metavar="N", group=_WORLD,
    )  # fmt: skip
    threads: int | None = option("threads of the CPU", None, count, "N", group=_WORLD)

    def open_world(
        self,
        name: str,
        num_worlds: int = 1,
        num_steps: int | None = None,
        window_size: int | None = None,
        frame_size: tuple[int, int] | None = None,
        noise_scale: float = 1.0,
    ) -> World:
        """Load a world; what was typed goes before the arguments.
        Raises ValueError, FileNotFoundError: as `load_world`.
        """
        from magi_world.loading import load_world

        attention: Any = self.attention or "sdpa"
        return load_world(
            name,
            num_worlds,
            device=known_device(self.device),
            dtype=self.dtype,
            num_steps=self.steps or num_steps,
            window_size=self.window or window_size,
            frame_size=self.size or frame_size,
            weights=self.weights,
            captions=self.text_features,
            text_device=known_device(self.text_device),
            attention=attention,
            noise_scale=noise_scale,
            threads=self.threads or "auto",
            parallel=self.parallel or started_together(),
            history=self.history,
            sink=self.sink,
            history_place=self.history_place,
        )

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
