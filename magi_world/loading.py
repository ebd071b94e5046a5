"""From a name to a running world: shipped and installed packages, and the released weights."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch

from magi_world.config import DEFAULT_WORLD as DEFAULT_WORLD
from magi_world.engine import OWN_ON_CPU, EngineConfig, prepare_parts, slow_parts
from magi_world.io.package import RECORD, read_package
from magi_world.io.read_released import Dtype, Offload, Reading, read_released, say_plan
from magi_world.io.released import PRESETS, preset
from magi_world.memory import CardFullError
from magi_world.model.attention import Backend
from magi_world.model.text import PromptTokens
from magi_world.parallel.ranks import rank_device
from magi_world.parallel.split import Parallel
from magi_world.parallel.start import Team, gather_team
from magi_world.sampling.long_history import HistoryPlan, make_place
from magi_world.threads import Threads, settle_threads
from magi_world.world.parts import WorldParts, whole_dit
from magi_world.world.world import World

SHIPPED = Path(__file__).parent / "worlds"
_LOG = logging.getLogger(__name__)
INSTALLED = Path("~/.magi-world/worlds")
# Options that say something about T5 and its weights, which packages do not have.
_RELEASED_ONLY = (
    "weights", "captions", "text_device", "text_dtype", "prompt_tokens", "enhance", "offload",
)  # fmt: skip


@dataclass(frozen=True)
class LoadOptions:
    """How a world is loaded.

    device: None is the GPU where there is one, else the CPU.
    dtype: "float32" or "bfloat16"; None is what the world was made for.
    num_steps, window_size, frame_size: None is what the world was made for. Interactive use of the
        released weights wants ``window_size=1``.
    weights: folder of the released weights, as it was downloaded.
    captions: released weights only: a file of saved caption features
        (`magi_world.model.text.save_captions`), so that T5 is not loaded at all.
    text_device, text_dtype: released weights only: where T5 runs, and in which precision ("float32"
        is that of the released code); None is ``device``, and the precision of the transformer.
    prompt_tokens: released weights only: what captions say beside the prompt
        (`magi_world.model.text.PromptTokens`), e.g. ``{"anime_2d": True, "negative": True}``.
    enhance: released weights only: a function that rewrites a prompt before T5 reads it.
    offload: released weights only: what leaves the card while it is idle, "text" (T5) or "all" (T5
        and the autoencoder, which then comes back for every chunk).
    attention: a kernel (`magi_world.model.attention`): "sdpa", "auto", "flash", "magi", ...
    engine: how the models are laid out for speed (`magi_world.engine`). "auto" is
        `magi_world.engine.OWN_ON_CPU` for a world package on a CPU, and nothing for the released
        weights, a GPU, or several processes; None is nothing.
    noise_scale: standard deviation of the noise that chunks start from.
    threads: of the CPU, for the whole process: a number; "auto", which takes fewer than torch
        does where the machine is busy, once a process; None leaves them.
    parallel: one world over the processes that torchrun started: "auto" takes them all, a number
        says how many they are, "STAGESxRANKS" splits layers as well as heads. The world is
        returned at rank 0 alone; the others work for it, and end in `load_world` with it.
    history: clean chunks that are seen; None is what the world was trained for.
    sink: how many of them are the first ones of the video.
    history_place: where chunks older than the newest few lie: "card" (None), "host", or a folder,
        for a file there that is mapped into memory and goes with the process.
    """

    device: str | torch.device | None = None
    dtype: Dtype | None = None
    num_steps: int | None = None
    window_size: int | None = None
    frame_size: tuple[int, int] | None = None
    weights: str | Path | None = None
    captions: str | Path | None = None
    text_device: str | torch.device | None = None
    attention: Backend = "sdpa"
    noise_scale: float = 1.0
    threads: Threads | None = "auto"
    parallel: Parallel = None
    history: int | None = None
    sink: int | None = None
    history_place: str | Path | None = None
    engine: EngineConfig | Literal["auto"] | None = "auto"
    text_dtype: Dtype | None = None
    prompt_tokens: PromptTokens | Mapping[str, Any] | None = None
    enhance: Callable[[str], str] | None = None
    offload: Offload | None = None

    @classmethod
    def of(cls, value: LoadOptions | Mapping[str, Any] | None) -> LoadOptions:
        """From a mapping of some of the fields, as JSON and command lines have them.

        Raises:
            ValueError: neither options nor a mapping, or a field that there is not.
        """
        if isinstance(value, LoadOptions):
            return value
        if value is not None and not isinstance(value, Mapping):
            raise ValueError(f"load is {value!r:.80}; it must be a LoadOptions or a mapping")
        known, given = [f.name for f in fields(cls)], dict(value or {})
        if unknown := [name for name in given if name not in known]:
            raise ValueError(f"load has {unknown[0]!r}; it may have {', '.join(known)}")
        if isinstance(given.get("frame_size"), list):
            given["frame_size"] = tuple(given["frame_size"])
        return cls(**given)

    @property
    def chosen_device(self) -> torch.device:
        """Where the world goes."""
        device = checked_device(self.device)
        return device if self.parallel is None else rank_device(device)


def list_worlds() -> list[str]:
    """Names of the worlds that `load_world` finds without a path: shipped ones first.

    Own worlds are installed by copying their folder to ~/.magi-world/worlds.
    """
    return list(world_folders())


def world_folders() -> dict[str, Path]:
    """Name -> folder of every shipped and installed world."""
    found: dict[str, Path] = {}
    for root in (SHIPPED, _home(INSTALLED)):
        for record in sorted(root.glob(f"*/{RECORD}")):
            found.setdefault(record.parent.name, record.parent)
    return found


def load_world(
    name: str | Path,
    num_worlds: int = 1,
    device: str | torch.device | None = None,
    dtype: Dtype | None = None,
    num_steps: int | None = None,
    window_size: int | None = None,
    frame_size: tuple[int, int] | None = None,
    weights: str | Path | None = None,
    captions: str | Path | None = None,
    text_device: str | torch.device | None = None,
    attention: Backend = "sdpa",
    noise_scale: float = 1.0,
    threads: Threads | None = "auto",
    parallel: Parallel = None,
    history: int | None = None,
    sink: int | None = None,
    history_place: str | Path | None = None,
    engine: EngineConfig | Literal["auto"] | None = "auto",
    text_dtype: Dtype | None = None,
    prompt_tokens: PromptTokens | Mapping[str, Any] | None = None,
    enhance: Callable[[str], str] | None = None,
    offload: Offload | None = None,
) -> World:
    """A world, ready for `World.reset`. All options but the first two are those of `LoadOptions`.

    Args:
        name: a name of `list_worlds`, the folder of a world package, one of the released models
            ("magi-1-4.5b-distill", ...), which needs ``weights``, a world on the Hugging Face hub
            ("hf:owner/name", see `magi_world.io.hub`), or the address of a server ("ws://...", see
            `magi_world.remote`), which chose all other options itself.
        num_worlds: worlds in the batch.

    Raises:
        ValueError: an unknown name, or options that do not fit together.
        FileNotFoundError: a file is missing.
    """
    options = LoadOptions(
        device, dtype, num_steps, window_size, frame_size, weights, captions, text_device,
        attention, noise_scale, threads, parallel, history, sink, history_place, engine,
        text_dtype, prompt_tokens, enhance, offload,
    )  # fmt: skip
    return open_world(name, num_worlds, options)


def open_world(name: str | Path, num_worlds: int, options: LoadOptions) -> World:
    """`load_world`, with its options in one piece."""
    if str(name).startswith(("ws://", "wss://")):
        return _remote(str(name), num_worlds, options)
    if isinstance(options.engine, EngineConfig) and options.parallel is not None:
        raise ValueError("engine and parallel are both given; a split transformer keeps its layout")
    device = options.chosen_device
    engine = _engine(name, options, device)
    settle_threads(options.threads, device)
    team = gather_team(options.parallel, device)
    try:
        parts = _read(name, num_worlds, options, device, team)
    except Exception as error:
        if team is None:
            raise
        raise team.failed(error) from error
    if team is not None:
        parts = team.enter(parts)
    if engine is not None:
        parts = prepare_parts(parts, engine)
    if device.type == "cuda" and (slow := slow_parts(parts.dit)):
        warnings.warn(f"{parts.spec.name}: {slow}", stacklevel=2)
    try:
        return World(parts, num_worlds, options.attention, options.noise_scale)
    except torch.OutOfMemoryError as error:
        raise CardFullError(f"{parts.spec.name} does not fit; {parts.advice}") from error


def _engine(name: str | Path, options: LoadOptions, device: torch.device) -> EngineConfig | None:
    """The layout that is meant."""
    if options.engine is None or isinstance(options.engine, EngineConfig):
        return options.engine
    if options.engine != "auto":
        raise ValueError(
            f"engine is {options.engine!r:.40}; it must be an EngineConfig, 'auto' or None"
        )
    own = str(name) not in PRESETS and device.type == "cpu" and options.parallel is None
    return OWN_ON_CPU if own else None


def _read(
    name: str | Path,
    num_worlds: int,
    options: LoadOptions,
    device: torch.device,
    team: Team | None,
) -> WorldParts:
    """The parts of a world, or this process's part of them."""
    make_dit = whole_dit if team is None else team.make_dit
    size = (options.num_steps, options.window_size, options.frame_size)
    past = (options.history, options.sink)
    if str(name) in PRESETS:
        if options.weights is None:
            raise ValueError(f"{name} needs weights=DIR, the folder with the released weights")
        config = preset(str(name)).with_options(*size, options.dtype, *past)
        reading = Reading(
            captions=options.captions,
            text_device=checked_device(options.text_device or device),
            text_dtype=options.text_dtype,
            tokens=PromptTokens.of(options.prompt_tokens),
            enhance=options.enhance,
            offload=checked_offload(options.offload, device),
            make_dit=make_dit,
            with_text=team is None or team.leads,
        )
        if team is None:
            far = options.history_place not in (None, "card")
            advice = say_plan(config, options.weights, num_worlds, device, reading, far)
        parts = read_released(config, options.weights, device, reading)
        parts = replace(parts, advice=advice if team is None else "")
    else:
        for extra in _RELEASED_ONLY:
            if getattr(options, extra) is not None:
                raise ValueError(f"{extra} is for {', '.join(PRESETS)}; {name} is none of them")
        folder = find_package(name)
        _LOG.info("loading %s from %s to %s", name, folder, device)
        parts = read_package(folder, device, options.dtype, *size, *past, make_dit)
    sink = parts.config.sampler.sink
    if options.history is None and not sink and options.history_place is None:
        return parts
    plan = HistoryPlan(sink, make_place(options.history_place))
    return replace(parts, make_cache=plan.make)


def _remote(url: str, num_worlds: int, options: LoadOptions) -> World:
    from magi_world.remote.world import RemoteWorld

    for field in fields(options):
        if field.name != "threads" and getattr(options, field.name) != field.default:
            raise ValueError(
                f"{field.name} is {getattr(options, field.name)!r}, but {url} is a server, which "
                "has loaded its world already; leave it out"
            )
    return RemoteWorld(url, num_worlds)


def checked_offload(offload: object, device: torch.device) -> Offload | None:
    """``offload``, if there is a card to leave.

    Raises:
        ValueError: an unknown word, or a device whose memory is the host's.
    """
    if offload is None:
        return None
    if offload not in get_args(Offload):
        raise ValueError(f"offload is {offload!r:.40}; it must be None, 'text' or 'all'")
    if device.type != "cuda":
        raise ValueError(
            f"offload is {offload!r}, but the weights are on {device.type}, where there is no card "
            "to leave; leave it out"
        )
    return cast(Offload, offload)


def _home(folder: Path) -> Path:
    """The folder with ~ resolved; as it is where nobody is at home, e.g. in a container."""
    try:
        return folder.expanduser()
    except RuntimeError:
        return folder


def checked_device(device: str | torch.device | None) -> torch.device:
    """The device of that name; None is the GPU where there is one.

    Raises:
        ValueError: there is none of that name here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    right = "it must be 'cpu', 'cuda', 'cuda:1', ..., or None"
    if not isinstance(device, str | torch.device) or not str(device):
        raise ValueError(f"device is {device!r:.60}; {right}")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        known = str(error).startswith(("Expected one of", "Invalid device"))
        reason = "no such device is known" if known else str(error).splitlines()[0]
        raise ValueError(f"device is {str(device)!r:.60}: {reason}; {right}") from error
    return torch.device(device)


def find_package(name: str | Path) -> Path:
    """The folder of a world package, by name or path.

    Raises:
        ValueError: there is no such world; the message lists those there are.
    """
    if not isinstance(name, str | Path):
        raise ValueError(
            f"world is {name!r:.60}, a {type(name).__name__}; it must be a name or path"
        )
    if str(name).startswith("hf:"):
        from magi_world.io.hub import fetch_world

        return fetch_world(str(name))
    folders = world_folders()
    if str(name) in folders:
        return folders[str(name)]
    with suppress(OSError, ValueError):  # a name that no file can have
        # The folder of a training run has its world inside, finished or not.
        for folder in (Path(name), Path(name) / "world"):
            if (folder / RECORD).is_file():
                return folder
    known = ", ".join([*folders, *PRESETS])
    raise ValueError(
        f"there is no world {str(name)!r:.200}; it must be one of {known}, or a folder with "
        f"{RECORD}"
    )
