"""`RemoteWorld`: the interface of `World`, its work done by `magi-world serve` elsewhere.

Shapes: B worlds, T video frames, H, W pixels, C latent channels, t latent frames, h, l latent size.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from magi_world.checks import at_least_one, world_rows
from magi_world.config import DiTConfig, MagiConfig, SamplerConfig, VAEConfig
from magi_world.language import CommandQueue, Reading, Step
from magi_world.remote.connection import Connection
from magi_world.remote.wire import Parcel
from magi_world.sampling.denoise import DenoisingWindow, Progress
from magi_world.sampling.stream import RowState, StreamConfig, StreamState
from magi_world.world.chunk import Chunk
from magi_world.world.parts import WorldParts
from magi_world.world.snapshot import PromptState, Snapshot
from magi_world.world.spec import Command, WorldSpec
from magi_world.world.start import Beginning
from magi_world.world.world import Steer, World


@dataclass(frozen=True)
class RemoteState:
    """What is known here of a state that lies on the server."""

    rows: tuple[RowState, ...]
    newest_clean: Tensor


@dataclass(frozen=True, eq=False)
class RemoteSnapshot(Snapshot):
    """A handle: the state lies on the server for as long as this object or its world lives."""

    connection: Connection | None = None
    handle: int = -1

    def save(self, path: str | Path) -> None:
        part = Path(f"{path}.part")
        part.write_bytes(self._content())
        os.replace(part, path)

    def fetch(self) -> Snapshot:
        """The state itself, as a `World` of the same package continues it."""
        path = Path(_scratch())
        try:
            path.write_bytes(self._content())
            return Snapshot.load(path)
        finally:
            path.unlink(missing_ok=True)

    def _content(self) -> bytes:
        assert self.connection is not None, "made by a RemoteWorld only"
        seeds = [row.seed for row in self.state.rows]
        answer = self.connection.ask("download", None, {"state": self.handle, "seeds": seeds})
        return answer.arrays["file"].tobytes()


class RemoteInterpreter:
    """Reads texts as the server's world does."""

    def __init__(self, connection: Connection, spec: WorldSpec) -> None:
        self._connection, self.spec = connection, spec

    def read(self, text: str, now: CommandQueue | None = None) -> Reading:
        return self._reading(text, now, False)

    def verbatim(self, text: str) -> Reading:
        return self._reading(text, None, True)

    def _reading(self, text: str, now: CommandQueue | None, verbatim: bool) -> Reading:
        queue = None if now is None else now.to_record()
        asked = {"text": text, "queue": queue, "verbatim": verbatim}
        got = self._connection.ask("read", None, asked).fields
        steps = tuple(Step(command, chunks) for command, chunks in got["steps"])
        return Reading(got["text"], got["command"], got["confidence"], steps, got["answer"])


class RemoteWorld(World):
    """``num_worlds`` worlds on a server, stepped together with those of its other visitors.

    Frames and latents come without loss. A snapshot is a handle to a state on the server; `save`
    fetches it. One world differs from the same world here by the rounding of sums at most.
    """

    def __init__(
        self, url: str, num_worlds: int = 1, world: str | None = None, timeout: float = 120.0
    ) -> None:
        """Args:
            url: "ws://HOST:PORT" of `magi-world serve`, with ?token=... where it has one.
            world: name of one of the server's worlds; None is its first.
            timeout: seconds to wait for an answer.

        Raises:
            ValueError: no such url or world, or more worlds than the server allows.
            OSError: nobody answers there, or lets us in.
        """
        connection = Connection(url, timeout)
        asked = {"world": world, "num_worlds": at_least_one("num_worlds", num_worlds)}
        answer = connection.ask("open", None, asked)
        self._set_up(connection, _parts(connection, answer.fields), answer.fields, num_worlds)

    def _set_up(
        self, connection: Connection, parts: WorldParts, opened: Mapping[str, Any], count: int
    ) -> None:
        self.parts, self._connection = parts, connection
        sampler, scale = parts.config.sampler, float(opened["noise_scale"])
        self.config = StreamConfig(
            sampler, parts.config.latent_size, count, opened["attention"], scale
        )
        self.device = torch.device("cpu")  # where frames arrive
        self.latent_shape = tuple(opened["latent_shape"])
        self.cache_bytes = int(opened["cache_bytes"]) * count
        self._opened = dict(opened)
        # What was said and is not done yet is kept here; the server is told command by command.
        self._prompts = [PromptState() for _ in range(count)]
        self._started = [False] * count
        self._id = int(opened["id"])
        self._here: RemoteSnapshot | None = None
        weakref.finalize(self, connection.forget_world, self._id)

    @property
    def seeds(self) -> tuple[int, ...]:
        if self._here is None:
            return (0,) * self.num_worlds
        return tuple(row.seed for row in self._here.state.rows)

    @property
    def source(self) -> str:
        return str(self._opened["world"])

    @property
    def served(self) -> list[str]:
        return list(self._connection.hello["worlds"])

    def _begin(self, asked: Beginning) -> Chunk:
        pixels = {"image": asked.image, "video": asked.video}
        arrays = {n: np.asarray(torch.as_tensor(x)) for n, x in pixels.items() if x is not None}
        first = self.spec.default_command
        for row in asked.rows:
            self._started[row] = False
            self._prompts[row] = PromptState(queue=CommandQueue(command=first, rest=first))
        fields = {"seeds": asked.seeds, "prompts": asked.scenes, "start": asked.start}
        chunk = self._chunk_of(self._ask("reset", arrays, {"rows": asked.rows, **fields}))
        for row in asked.rows:
            self._started[row] = True
        return chunk

    def _advance(
        self,
        rows: Sequence[int],
        due: Sequence[tuple[str | None, CommandQueue]],
        steer: Steer,
        progress: Progress | None,
        decoded: bool,
    ) -> Chunk:
        """The server decodes every chunk, also those of `step_latents`."""
        steps, before = self.parts.config.sampler.steps_per_stage, list(self._prompts)
        known = self._here
        for row, (_, queue) in zip(rows, due, strict=True):
            self._prompts[row] = replace(self._prompts[row], queue=queue)
        if progress is not None:
            progress(0, steps)
        asked = {"rows": rows, "commands": [command for command, _ in due], "steer": steer}
        try:
            chunk = self._chunk_of(self._ask("step", None, asked))
        except BaseException:
            self._prompts = before
            raise
        if known is not None and self.parts.heads_see > 1:
            clean = cast(RemoteState, known.state).newest_clean
            chunk = replace(chunk, before=clean[list(rows)])
        if progress is not None:
            progress(steps, steps)
        return chunk

    def decode(self, chunk: Chunk) -> Chunk:
        if chunk.pixels is not None:
            return chunk
        arrays = {"latents": chunk.latents.float().cpu().numpy()}
        pixels = self._connection.ask("decode", arrays, {"id": self._id}).arrays["pixels"]
        return chunk.with_pixels(torch.from_numpy(pixels))

    def snapshot(self, worlds: Sequence[int] | None = None) -> Snapshot:
        if worlds is None and self._here is not None:
            return self._here
        rows = world_rows(worlds, self.num_worlds)
        return self._state_of(self._ask("snapshot", None, {"rows": rows}), rows)

    def _continue(self, snapshot: Snapshot, targets: Sequence[int], sources: Sequence[int]) -> None:
        handle = self._handle(snapshot)
        seeds = [row.seed for row in snapshot.state.rows]
        asked = {"state": handle, "targets": targets, "sources": sources, "seeds": seeds}
        answer = self._ask("restore", None, asked)
        for target, source in zip(targets, sources, strict=True):
            queue = snapshot.prompts[source].queue
            self._prompts[target] = replace(self._prompts[target], queue=queue)
            self._started[target] = True
        self._here = self._state_of(answer, range(self.num_worlds))

    def close(self) -> None:
        self._connection.close()

    def another(self, num_worlds: int) -> RemoteWorld:
        asked = {"world": self._opened["world"], "num_worlds": num_worlds}
        twin = object.__new__(RemoteWorld)
        opened = self._connection.ask("open", None, asked).fields
        # Parts of its own: its predictors must not ask in the name of a world that may be closed.
        twin._set_up(self._connection, _parts(self._connection, opened), opened, num_worlds)
        return twin

    def _ask(
        self, do: str, arrays: Mapping[str, np.ndarray] | None, asked: Mapping[str, Any]
    ) -> Parcel:
        answer = self._connection.ask(do, arrays, {"id": self._id, **asked})
        if do in ("reset", "step"):
            started = answer.fields.get("state") is not None
            everything = range(self.num_worlds)
            self._here = self._state_of(answer, everything) if started else None
        return answer

    def _handle(self, snapshot: Snapshot) -> int:
        if isinstance(snapshot, RemoteSnapshot) and snapshot.connection is self._connection:
            return snapshot.handle
        whole = snapshot.fetch() if isinstance(snapshot, RemoteSnapshot) else snapshot
        path = Path(_scratch())
        try:
            whole.save(path)
            content = np.frombuffer(path.read_bytes(), np.uint8)
        finally:
            path.unlink(missing_ok=True)
        answer = self._connection.ask("upload", {"file": content}, {"id": self._id})
        handle = int(answer.fields["state"])
        weakref.finalize(snapshot, self._connection.forget, handle)
        return handle

    def _chunk_of(self, answer: Parcel) -> Chunk:
        got = answer.fields
        return Chunk(
            torch.from_numpy(answer.arrays["latents"]),
            index=tuple(got["index"]),
            prompts=tuple(got["prompts"]),
            lands=tuple(got["lands"]),
            skip=tuple(got["skip"]),
            pixels=torch.from_numpy(answer.arrays["pixels"]),
        )

    def _state_of(self, answer: Parcel, rows: Sequence[int]) -> RemoteSnapshot:
        got, handle = answer.fields, int(answer.fields["state"])
        states = tuple(
            RowState(
                row["seed"],
                DenoisingWindow(**row["window"]),
                clean_pending=row["clean_pending"],
                start_chunk=row["start_chunk"],
            )
            for row in got["row_states"]
        )
        state = RemoteState(states, torch.from_numpy(answer.arrays["newest"]))
        snapshot = RemoteSnapshot(
            self.spec.fingerprint,
            self.parts.config.sampler,
            cast(StreamState, state),
            tuple(
                PromptState(**{**prompt, "queue": self._prompts[row].queue})
                for row, prompt in zip(rows, got["prompt_states"], strict=True)
            ),
            self.config.noise_scale,
            self._connection,
            handle,
        )
        weakref.finalize(snapshot, self._connection.forget, handle)
        return snapshot


class _Heads:
    """The server's predictors, see `magi_world.envs.rewards.Heads`."""

    def __init__(
        self,
        connection: Connection,
        world: int,
        worth: Mapping[str, float] | None,
        chunks: int,
    ) -> None:
        self._connection, self._world = connection, world
        self.chunks = chunks  # that are seen, the judged one last
        self.worth = worth  # event -> what it adds to the reward; None: the server does not say

    def __call__(self, latents: Tensor) -> dict[str, Any]:
        arrays = {"latents": latents.float().cpu().numpy()}
        got = self._connection.ask("heads", arrays, {"id": self._world}).arrays
        said: dict[str, Any] = {"reward": torch.from_numpy(got["reward"])}
        said["end"] = torch.from_numpy(got["end"])
        events = {n[6:]: torch.from_numpy(x) for n, x in got.items() if n.startswith("event.")}
        return {**said, "events": events}


def _parts(connection: Connection, opened: Mapping[str, Any]) -> WorldParts:
    """Facts of the world; what computes lies on the server."""
    spec, config = _spec(opened["spec"]), _config(opened["config"])
    heads = None
    if opened["heads"]:
        heads = _Heads(
            connection, int(opened["id"]), opened.get("worth"), int(opened.get("sees", 1))
        )
    nothing = cast(Any, None)
    parts = WorldParts(spec, config, nothing, nothing, nothing, heads=cast(Any, heads))
    # A cached property is looked up here first.
    parts.__dict__["interpreter"] = RemoteInterpreter(connection, spec)
    return parts


def _spec(record: Mapping[str, Any]) -> WorldSpec:
    commands = tuple(_known(Command, command) for command in record["commands"])
    return _known(WorldSpec, {**record, "commands": commands})


def _config(record: Mapping[str, Any]) -> MagiConfig:
    kinds: dict[str, Any] = {"dit": DiTConfig, "vae": VAEConfig, "sampler": SamplerConfig}
    built = {name: _known(kind, record[name]) for name, kind in kinds.items()}
    return _known(MagiConfig, {**record, **built})


def _known(kind: type[Any], record: Mapping[str, Any]) -> Any:
    """The dataclass; fields that a newer server adds are left out, lists become tuples."""
    names = {f.name for f in fields(kind)}
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items() if k in names}
    return kind(**values)


def _scratch() -> str:
    handle, name = tempfile.mkstemp(suffix=".safetensors")
    os.close(handle)
    return name
