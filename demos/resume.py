"""What lets an interrupted recording go on: its chunks as latents, and states of the world.

They lie in a folder beside the recording, which is removed when that is complete. Latents are
small, and decode to the same frames again; states are large for large models, so they are written
only now and then.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from magi_world.chunk import Chunk
from magi_world.config import require
from magi_world.events import to_record
from magi_world.session import Session
from magi_world.snapshot import Snapshot
from magi_world.weights import load_tensors, read_metadata

# A state is written at most so often, in seconds, and never for more than this share of the time.
STATE_EVERY = 10.0
STATE_SHARE = 0.05
_PLAN, _STATE = "plan.json", "state-{:06d}.safetensors"


class ResumeFolder:
    """The folder of one recording.

    done: number of the last event whose state is known; -1 if none is.
    """

    def __init__(self, path: Path, session: Session) -> None:
        """Nothing is read or written yet."""
        self.path, self.done = path, -1
        self._plan = _digest(session)
        self._next_state = time.monotonic() + STATE_EVERY

    def begin(self) -> None:
        """Make the folder anew."""
        self.remove()
        self.path.mkdir(parents=True)
        (self.path / _PLAN).write_text(json.dumps({"plan": self._plan}) + "\n", "utf-8")

    def resume(self) -> Snapshot | None:
        """The state from which to go on; None if no state was written. Sets `done`.

        Raises:
            ValueError: no folder, or it is of another script, world or version.
        """
        plan = self.path / _PLAN
        require(
            plan.is_file(),
            f"there is nothing to resume: {self.path} does not exist (it is removed when a "
            "recording is complete)",
        )
        require(
            json.loads(plan.read_text("utf-8"))["plan"] == self._plan,
            f"{self.path} is of another script, world, device or version; give --overwrite to "
            "begin anew",
        )
        states = sorted(self.path.glob("state-*.safetensors"))
        if not states:
            return None
        self.done = int(states[-1].stem.split("-")[1])
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
        save_file(ready, self._chunk_file(number), {"chunk": json.dumps(facts)})

    def chunk(self, number: int, device: torch.device) -> Chunk | None:
        """The chunk of an event, without pixels where they can be decoded; None if it gave none."""
        path = self._chunk_file(number)
        if not path.is_file():
            return None
        facts = json.loads(read_metadata(path)["chunk"])
        tensors = load_tensors(path)
        pixels = tensors.get("pixels")
        return Chunk(
            tensors["latents"].to(device),
            pixels=None if pixels is None else pixels.to(device),
            **{name: tuple(values) for name, values in facts.items()},
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
        """Whether there is no state in it to go on from."""
        return not list(self.path.glob("state-*.safetensors"))

    def remove(self) -> None:
        """The recording is complete, or was never begun."""
        if (self.path / _PLAN).is_file():
            shutil.rmtree(self.path)

    def _chunk_file(self, number: int) -> Path:
        return self.path / f"chunk-{number:06d}.safetensors"


def _digest(session: Session) -> str:
    record = [asdict(session.header), *map(to_record, session.events)]
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
