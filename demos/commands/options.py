"""Options that several commands share."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from magi_world.world.world import World

Commands = Any  # what ArgumentParser.add_subparsers returns; argparse gives it no public name


def add_world_options(parser: argparse.ArgumentParser) -> None:
    """How a world is loaded."""
    group = parser.add_argument_group("the world")
    group.add_argument(
        "--weights", metavar="DIR", help="folder of the released MAGI-1 weights, for magi-1-..."
    )
    group.add_argument(
        "--text-features", metavar="FILE", help="saved captions for magi-1-..., instead of T5"
    )
    group.add_argument("--text-device", help="where T5 runs; default: as --device")
    group.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: the GPU if there is one")
    group.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: the world's own")
    group.add_argument("--steps", type=count, metavar="N", help="denoising steps a chunk")
    group.add_argument("--window", type=count, metavar="N", help="chunks in flight")
    group.add_argument("--size", type=size, metavar="HxW", help="height x width of the frames")
    group.add_argument("--attention", metavar="KERNEL", help="auto, sdpa, flash, flash2, ...")
    group.add_argument("--history", type=count, metavar="N", help="chunks of the past in sight")
    group.add_argument("--sink", type=count, metavar="N", help="of them the first of the video")
    group.add_argument(
        "--history-place", metavar="P", help="card, host or a folder, for what is old of it"
    )
    group.add_argument(
        "--parallel",
        metavar="N",
        help="one world over the N processes of torchrun; auto: all of them; PxR: P stages of "
        "layers x R ranks",
    )
    group.add_argument("--threads", type=count, metavar="N", help="threads of the CPU")


_LOADING = (
    "weights", "text_features", "text_device", "device", "dtype", "steps", "window", "size",
    "attention",
)  # fmt: skip


def nothing_to_load(given: argparse.Namespace, instead: str) -> None:
    """Raise ValueError where an option was given that only loading a world here obeys."""
    for name in _LOADING:
        if (value := getattr(given, name)) is not None:
            option = "--" + name.replace("_", "-")
            raise ValueError(
                f"{option} {value} is for a world that is loaded here; with {instead} the server "
                "has chosen it already, so leave it out"
            )


def open_world(
    given: argparse.Namespace,
    name: str,
    num_steps: int | None = None,
    window_size: int | None = None,
    frame_size: tuple[int, int] | None = None,
    noise_scale: float = 1.0,
    num_worlds: int = 1,
) -> World:
    """Load a world; what was typed goes before the arguments.

    Raises:
        ValueError, FileNotFoundError: as `load_world`.
    """
    from magi_world.loading import load_world

    return load_world(
        name,
        num_worlds,
        device=known_device(given.device),
        dtype=given.dtype,
        num_steps=given.steps or num_steps,
        window_size=given.window or window_size,
        frame_size=given.size or frame_size,
        weights=given.weights,
        captions=given.text_features,
        text_device=known_device(given.text_device),
        attention=given.attention or "sdpa",
        noise_scale=noise_scale,
        threads=given.threads or "auto",
        parallel=given.parallel or started_together(),
        history=given.history,
        sink=given.sink,
        history_place=given.history_place,
    )


def started_together() -> str | None:
    """ "auto" where torchrun started this process, so that it need not be said twice."""
    return "auto" if "TORCHELASTIC_RUN_ID" in os.environ else None


def follows() -> bool:
    """Whether torchrun started this process to work for rank 0, and not to talk to anybody."""
    return started_together() is not None and os.environ.get("RANK", "0") != "0"


def known_device(name: str | None) -> str | None:
    """The device, if there is one of that name.

    Raises:
        ValueError: there is none.
    """
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
    """The world that is meant when none is named.

    Raises:
        ValueError: no world is installed.
    """
    from magi_world.loading import DEFAULT_WORLD, list_worlds

    names = list_worlds()
    if not names:
        raise ValueError("no world is installed; name the folder of one")
    return DEFAULT_WORLD if DEFAULT_WORLD in names else names[0]


def add_json(parser: argparse.ArgumentParser) -> None:
    """For scripts."""
    parser.add_argument("--json", action="store_true", help="print one JSON object, nothing else")


def print_json(record: object) -> None:
    """One line."""
    print(json.dumps(record, ensure_ascii=False, default=str))


def count(text: str) -> int:
    """A whole number from 1 on, for argparse."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def size(text: str) -> tuple[int, int]:
    """HxW, for argparse."""
    height, _, width = text.lower().partition("x")
    try:
        return count(height), count(width)
    except argparse.ArgumentTypeError:
        message = f"{text!r} is not HEIGHTxWIDTH, e.g. 480x832"
        raise argparse.ArgumentTypeError(message) from None


def file(text: str) -> Path:
    """A path, ~ resolved."""
    return Path(text).expanduser()
