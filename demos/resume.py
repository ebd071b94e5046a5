"""What lets an interrupted recording go on: its chunks as latents, and states of the world.

They lie in a folder beside the recording, which is removed when that is complete. Latents are
small, and decode to the same frames again; states are large for large models, so they are written
only now and then.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from magi_world.config import require
from magi_world.io.files import only_one, write_text
from magi_world.io.records import build, field_of, parse_json, read_json
from magi_world.io.safetensors_io import load_tensors, read_metadata
from magi_world.session.events import Reset, Step, to_record
from magi_world.session.session import Session
from magi_world.world.chunk import Chunk
from magi_world.world.snapshot import Snapshot

# A state is written at most so often, in seconds, and never for more than this share of the time.
STATE_EVERY = 10.0
STATE_SHARE = 0.05
_PLAN, _STATE = "plan.json", "state-{:06d}.safetensors"


@dataclass(frozen=True)
class _Facts:
    index: tuple[int, ...]
    prompts: tuple[str, ...]
    lands: tuple[int, ...]
    skip: tuple[int, ...]


class ResumeFolder:
    """The folder of one recording.

    done: number of the last event whose state is known; -1 if none is.
    """

    def __init__(self, path: Path, session: Session) -> None:
        self.path, self.done = path, -1
        self._plan = _digest(session)
        self._events = len(session.events)
        self._makes = [isinstance(event, Reset | Step) for event in session.events]
        self._next_state = time.monotonic() + STATE_EVERY

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, no other process writes this recording. Raises BlockingIOError: one does."""
        film = self.path.with_suffix("")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with only_one(self.path.with_name(f".{self.path.name}.lock"), str(film)):
            yield

    def begin(self) -> None:
        """Make the folder anew.
        Raises ValueError: there is something of that name that we did not make.
        """
        self.remove()
        require(
            not self.path.exists(), f"{self.path} is in the way, and not ours; move it elsewhere"
        )
        self.path.mkdir(parents=True)
        write_text(self.path / _PLAN, json.dumps({"plan": self._plan}) + "\n")

    def resume(self) -> Snapshot | None:
        """The state from which to go on; None if no state was written. Sets `done`.
        Raises ValueError: no folder, or it is of another script, world or version.
        """
        plan = self.path / _PLAN
        require(
            plan.is_file(),
            f"there is nothing to resume: {self.path} does not exist (it is removed when a "
            "recording is complete)",
        )
        require(
            field_of(read_json(plan), "plan", str, str(plan)) == self._plan,
            f"{self.path} is of another script, world, device or version; give --overwrite to "
            "begin anew",
        )
        states = sorted(self.path.glob("state-*.safetensors"))
        if not states:
            return None
        digits = states[-1].stem.removeprefix("state-")
        require(
            digits.isascii() and digits.isdigit() and int(digits) < self._events,
            f"{states[-1]} is no state of this recording; give --overwrite to begin anew",
        )
        self.done = int(digits)
        return Snapshot.load(states[-1])

    def keep_chunk(self, number: int, chunk: Chunk, pixels: bool) -> None:
        """The chunk of event ``number``; with ``pixels`` where decoding would not give them."""
        tensors = {"latents": chunk.latents}
        if pixels:
            tensors["pixels"] = chunk.decoded
        facts = {
            "index": chunk.index,
            "prompts": chunk.prompts,
            "lands": chunk.lands,
            "skip": chunk.skip,
        }
        ready = {name: value.cpu().contiguous() for name, value in tensors.items()}
        # Not flushed to the disk, which takes longer than many a chunk: the state that comes
        # after it is, and only chunks before a state are read again.
        try:
            save_file(ready, self._chunk_file(number), {"chunk": json.dumps(facts)})
        except SafetensorError as error:  # how it tells of a full disk
            raise OSError(f"{self._chunk_file(number)} cannot be written: {error}") from error

    def chunk(self, number: int, device: torch.device) -> Chunk | None:
        """The chunk of an event, without pixels where they can be decoded; None if it gave none.
        Raises ValueError: it is missing or damaged; the recording cannot go on from here.
        """
        path = self._chunk_file(number)
        if not self._makes[number]:
            return None
        require(path.is_file(), f"{path} is missing; give --overwrite to begin anew")
        record = parse_json(read_metadata(path).get("chunk", "{}"), str(path))
        facts = build(_Facts, record, str(path))
        tensors = {name: tensor.clone() for name, tensor in load_tensors(path).items()}
        require("latents" in tensors, f"{path} holds no latents; give --overwrite to begin anew")
        pixels = tensors.get("pixels")
        return Chunk(
            tensors["latents"].to(device),
            pixels=None if pixels is None else pixels.to(device),
            **vars(facts),
        )

    def keep_state(self, number: int, snapshot: Snapshot, always: bool = False) -> None:
        """The state after event ``number``, if it is time for one."""
        begin = time.monotonic()
        if begin < self._next_state and not always:
            return
        path = self.path / _STATE.format(number)
        snapshot.save(path)
        for old in self.path.glob("state-*.safetensors"):
            if old != path:
                old.unlink()
        end = time.monotonic()
        self._next_state = end + max(STATE_EVERY, (end - begin) / STATE_SHARE)

    @property
    def empty(self) -> bool:
        return not list(self.path.glob("state-*.safetensors"))

    def remove(self) -> None:
        """The recording is complete, or was never begun. What is not ours stays."""
        if not self.path.is_dir() or self.path.is_symlink():
            return
        ours = (_PLAN, "state-*.safetensors", "chunk-*.safetensors", ".*.tmp", f".{_PLAN}.*")
        for pattern in ours:
            for file in self.path.glob(pattern):
                file.unlink()
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def _chunk_file(self, number: int) -> Path:
        return self.path / f"chunk-{number:06d}.safetensors"


def _digest(session: Session) -> str:
    record = [asdict(session.header), *map(to_record, session.events)]
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
