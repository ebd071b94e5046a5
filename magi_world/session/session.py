"""A session file: what was said to a world, chunk by chunk, as JSON lines.

The first line is the header (versions, world, sampler), every further line one event
(`magi_world.session.events`), written when it happens, so a killed run loses at most one. With the
world of the header the events give the same bytes again (`magi_world.session.player`); edited,
they give another film.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from magi_world.io.records import build
from magi_world.model.attention import Backend
from magi_world.session.events import (
    Event,
    Load,
    PerWorld,
    Reset,
    Save,
    StartFile,
    Step,
    frames_digest,
    from_record,
    to_record,
)
from magi_world.world.chunk import Chunk
from magi_world.world.snapshot import PromptState
from magi_world.world.world import World

SCHEMA = 1
_RANGES = {
    "num_steps": (1, 1_024),
    "window_size": (1, 64),
    "num_worlds": (1, 1_000_000),
    "threads": (0, 1_024),
}
_DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Header:
    """What the bytes of a session depend on, beside its events.

    world: what `load_world` takes; fingerprint: of its weights.
    device: "cpu", or the name of the GPU.    num_worlds: worlds in the batch.
    threads: of the CPU, 0 on a GPU; how sums are split among them decides their last bit.
    """

    world: str
    fingerprint: str
    num_steps: int
    window_size: int
    frame_size: tuple[int, int]
    frames_per_chunk: int
    fps: float
    num_worlds: int = 1
    noise_scale: float = 1.0
    attention: str = "sdpa"
    dtype: str = "float32"
    device: str = "cpu"
    threads: int = 0
    package: str = ""
    torch: str = ""
    python: str = ""

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"{name} is {value}; it must be {least} .. {most}")
        if not self.world.strip() or any(
            c == "\0" or "\ud800" <= c <= "\udfff" for c in self.world
        ):
            raise ValueError(f"world is {self.world!r:.60}; it must be a name or a folder")
        if not 0 < self.noise_scale < float("inf"):
            raise ValueError(f"noise_scale is {self.noise_scale}; it must be positive")
        for name, known in (("dtype", _DTYPES), ("attention", get_args(Backend))):
            given = getattr(self, name)
            if given not in known:
                raise ValueError(f"{name} is {given!r:.60}; it must be one of {known}")

    @staticmethod
    def of(world: World, source: str | None = None) -> Header:
        """The header of a session with this world; ``source`` is what it was loaded by."""
        config, stream = world.parts.config, world.config
        cuda = world.device.type == "cuda"
        return Header(
            world=source or world.spec.name,
            fingerprint=world.spec.fingerprint,
            num_steps=config.sampler.num_steps,
            window_size=config.sampler.window_size,
            frame_size=world.spec.frame_size,
            frames_per_chunk=world.spec.frames_per_chunk,
            fps=world.spec.fps,
            num_worlds=world.num_worlds,
            noise_scale=stream.noise_scale,
            attention=stream.attention,
            dtype=config.dtype,
            device=torch.cuda.get_device_name(world.device) if cuda else world.device.type,
            threads=0 if cuda else torch.get_num_threads(),
            package=version("magi-world"),
            torch=torch.__version__,
            python=platform.python_version(),
        )

    def differences(self, world: World) -> list[str]:
        """What is not as it was, each as one readable line; where it is empty, bytes repeat."""
        mine = asdict(Header.of(world, self.world))
        pairs = [(f.name, getattr(self, f.name), mine[f.name]) for f in fields(self)]
        return [f"{name} was {was}, is {now}" for name, was, now in pairs if was != now]


@dataclass(frozen=True)
class Session:
    """A session that was read.

    lines: the line of each event in the file, for messages.
    truncated: the last line was cut off in the middle, and left out.
    """

    header: Header
    events: tuple[Event, ...]
    lines: tuple[int, ...] = ()
    path: Path | None = None
    truncated: bool = False

    @property
    def folder(self) -> Path:
        """What the paths of start files are relative to."""
        return Path() if self.path is None else self.path.parent

    def where(self, number: int) -> str:
        """Event ``number`` (from 0), as a message names it."""
        if not self.lines:
            return f"event {number}"
        return f"{self.path}, line {self.lines[number]}"


def read_session(path: str | Path) -> Session:
    """Read a session file; a last line that was cut off by a kill is left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no session file, or a line of it is wrong; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no session file {path}")
    rows = path.read_bytes().split(b"\n")
    numbers = [i for i, row in enumerate(rows) if row.strip()]
    header: Header | None = None
    events: list[Event] = []
    lines: list[int] = []
    truncated = False
    for i in numbers:
        where = f"{path}, line {i + 1}"
        try:
            record = json.loads(rows[i])
        except RecursionError:
            raise ValueError(f"{where}: not JSON (nested too deep)") from None
        except ValueError as error:
            # Every whole line ends with a line break, so a last one that does not was cut off.
            if i == len(rows) - 1 and header is not None:
                truncated = True
                break
            raise ValueError(f"{where}: not JSON ({error})") from None
        try:
            if not isinstance(record, dict):
                raise ValueError("it must be a JSON object")
            if header is None:
                header = _header(record)
                continue
            events.append(from_record(record))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        lines.append(i + 1)
    if header is None:
        raise ValueError(f"{path} is empty; a session begins with a header line")
    return Session(header, tuple(events), tuple(lines), path, truncated)


def _header(record: dict[str, Any]) -> Header:
    if "session" not in record:
        raise ValueError("this is no session file: its first line has no 'session' version")
    if record["session"] != SCHEMA:
        raise ValueError(f"session version is {record['session']!r}; this package reads {SCHEMA}")
    values = {key: value for key, value in record.items() if key != "session"}
    return build(Header, values, "the header")


class SessionWriter:
    """Writes a session while it happens. Use it in a ``with`` block, or call `close`.

    Every call writes one line and hands it to the operating system at once.
    """

    def __init__(
        self,
        path: str | Path,
        world: World,
        source: str | None = None,
        digests: bool = True,
    ) -> None:
        """Begins the file; its folder is made.

        Args:
            source: what the world was loaded by, where that is not its name.
            digests: write a checksum of the frames of each chunk; a few milliseconds a megapixel.

        Raises:
            FileExistsError: a session is never written over.
        """
        self.path, self.digests = Path(path), digests
        self._slots: set[str] = set()
        header = asdict(Header.of(world, source))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "x", encoding="utf-8")  # noqa: SIM115
        self._line({"session": SCHEMA, **header})

    def reset(
        self,
        chunk: Chunk,
        seeds: Sequence[int],
        scene: str | Sequence[str | None] | None = None,
        start: int | Literal["text"] | StartFile | None = None,
        worlds: Sequence[int] | None = None,
    ) -> None:
        """`World.reset` gave ``chunk``; ``seeds`` are those that were used (`World.seeds`)."""
        several = scene if scene is None or isinstance(scene, str) else tuple(scene)
        rows = None if worlds is None else tuple(worlds)
        seeds = tuple(int(seed) for seed in seeds)
        self.write(Reset(seeds, several, start, rows, self._digest(chunk)))

    def step(self, chunk: Chunk, steer: Literal["now", "queue"] = "now") -> None:
        """`World.step` gave ``chunk``, decoded; its command is the one in force."""
        self.write(step_event(chunk, steer, self._digest(chunk)))

    def write(self, event: Event) -> None:
        """Any event. The `Load` of a slot that was saved before in this session needs no file.

        Raises:
            ValueError: the writer was closed, or the file could not be read again with this event.
        """
        if isinstance(event, Load) and event.slot in self._slots:
            event = Load(event.slot)
        record = to_record(event)
        from_record(json.loads(json.dumps(record)))
        self._line(record)
        if isinstance(event, Save):
            self._slots.add(event.slot)

    def close(self) -> None:
        """Finish. A second call does nothing."""
        self._file.close()

    def __enter__(self) -> SessionWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _line(self, record: dict[str, Any]) -> None:
        if self._file.closed:
            raise ValueError(f"{self.path} was closed; begin a new session")
        line = json.dumps(record, ensure_ascii=False) + "\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            reason = f"{self.path} cannot be written: {error.strerror}"
            raise OSError(error.errno, reason) from error

    def _digest(self, chunk: Chunk) -> str | None:
        return frames_digest(chunk.frames) if self.digests else None


def step_event(
    facts: Chunk | Sequence[PromptState], steer: Literal["now", "queue"], digest: str | None = None
) -> Step:
    """The event of a step that gave a chunk, or that led to these prompts, one a world."""
    if isinstance(facts, Chunk):
        index, prompts, lands = facts.index, facts.prompts, facts.lands
    else:
        index = tuple(state.steps for state in facts)
        prompts = tuple(state.command for state in facts)
        lands = tuple(state.lands for state in facts)
    says = [text or None for text in prompts]
    say = says[0] if len(says) == 1 else tuple(says) if any(says) else None
    return Step(_merged(index), say, steer, _merged(lands), digest)


def _merged(numbers: tuple[int, ...]) -> PerWorld:
    return numbers[0] if len(set(numbers)) == 1 else numbers
