"""The door for `magi_world.RemoteWorld`: questions in, answers out, as `remote.wire` packs them."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from starlette.websockets import WebSocket, WebSocketDisconnect
from torch import Tensor

from magi_world import __version__
from magi_world.checks import check_prompt
from magi_world.config import require
from magi_world.demos.server.batching import Begin, Made
from magi_world.demos.server.config import TooFast
from magi_world.demos.server.hub import Full, Hub
from magi_world.demos.server.page_socket import check_text
from magi_world.demos.server.programs import Program, ProgramWorld, States
from magi_world.language import CommandQueue
from magi_world.remote.wire import PROTOCOL, Parcel, pack, unpack
from magi_world.world.chunk import decode_latents
from magi_world.world.snapshot import Snapshot, joined, row_of
from magi_world.world.world import World

Answer = tuple[dict[str, Any], dict[str, np.ndarray]]


async def remote_socket(socket: WebSocket, hub: Hub) -> None:
    await socket.accept()
    program = Program(hub.config.limits)
    try:
        hub.enter(program)
    except Full as error:
        await socket.send_json({"type": "refused", "field": "visitors", "message": str(error)})
        await socket.close(4001, str(error)[:120])
        return
    responder = _Responder(program, hub, socket.query_params.get("world"))
    try:
        while True:
            idle = hub.config.limits.idle
            try:
                message = await asyncio.wait_for(socket.receive_bytes(), idle)
            except TimeoutError:
                await socket.close(4003, f"nothing was asked for {idle / 60:g} minutes")
                return
            await socket.send_bytes(await responder.answer(message))
    except (WebSocketDisconnect, RuntimeError, KeyError):
        pass
    finally:
        hub.leave(program)
        with contextlib.suppress(RuntimeError):
            await socket.close()


class _Responder:
    """Does what a program asks."""

    def __init__(self, program: Program, hub: Hub, world: str | None) -> None:
        self._program, self._hub, self._default = program, hub, world

    async def answer(self, message: bytes) -> bytes:
        """The answer to one message; what is wrong is an answer, too."""
        try:
            asked = unpack(message)
            for number in asked.fields.get("forget", []):
                self._program.forget(number)
            for number in asked.fields.get("forget_worlds", []):
                self._program.close_world(number)
            do = asked.fields.get("do")
            method = getattr(self, f"_{do}", None) if do in _ASKED else None
            if method is None:
                raise ValueError(f"do is {do!r:.40}; it must be one of {', '.join(_ASKED)}")
            fields, arrays = await method(asked)
            return await asyncio.to_thread(pack, fields, arrays)
        except TooFast as error:
            return pack({"error": str(error), "wait": error.wait})
        except (ValueError, OSError, KeyError, TypeError) as error:
            missing = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            return pack({"error": missing})

    async def _hello(self, asked: Parcel) -> Answer:
        return {"protocol": PROTOCOL, "version": __version__, "worlds": list(self._hub.worlds)}, {}

    async def _open(self, asked: Parcel) -> Answer:
        served = self._hub.world(asked.fields.get("world") or self._default)
        world = served.world
        return {
            "id": self._program.open(served, asked.fields["num_worlds"]),
            "world": served.source,
            "spec": {**asdict(world.spec), "best_start": served.best_start},
            "config": asdict(world.parts.config),
            "attention": world.config.attention,
            "noise_scale": world.config.noise_scale,
            "latent_shape": world.latent_shape,
            "cache_bytes": served.alone.cache_bytes,
            "heads": world.parts.heads is not None,
            "worth": getattr(world.parts.heads, "worth", None),
            "sees": world.parts.heads_see,
        }, {}

    async def _reset(self, asked: Parcel) -> Answer:
        got, world = asked.fields, self._world(asked)
        rows = world.known(got["rows"])
        scenes = [None if s is None else check_prompt(s) for s in got["prompts"]]
        require(
            len(got["seeds"]) == len(scenes) == len(rows),
            f"seeds and prompts must have {len(rows)} entries, one for each world",
        )
        image, video = (_per_row(asked, name, len(rows)) for name in ("image", "video"))
        begins = [
            Begin(seed, scene, image[i], video[i], got.get("start"))
            for i, (seed, scene) in enumerate(zip(got["seeds"], scenes, strict=True))
        ]
        made = await self._program.reset(world, rows, begins)
        return self._told(world, made)

    async def _step(self, asked: Parcel) -> Answer:
        got, world = asked.fields, self._world(asked)
        limits = self._hub.config.limits
        commands = [
            None if c is None else check_text("command", c, limits) for c in got["commands"]
        ]
        if got["steer"] not in ("now", "queue"):
            raise ValueError(f"steer is {got['steer']!r}; it must be 'now' or 'queue'")
        made = await self._program.step(world, got["rows"], commands, got["steer"])
        return self._told(world, made)

    async def _snapshot(self, asked: Parcel) -> Answer:
        return self._kept(self._world(asked).started(asked.fields["rows"]))

    async def _restore(self, asked: Parcel) -> Answer:
        got, world = asked.fields, self._world(asked)
        states = self._program.states(got["state"], got.get("seeds"))
        self._program.restore(world, states, got["targets"], got["sources"])
        if any(row is None for row in world.rows):
            return self._kept([s for s in world.rows if s is not None])
        return self._kept(world.started(range(len(world.rows))))

    async def _upload(self, asked: Parcel) -> Answer:
        content, world = asked.arrays["file"].tobytes(), self._world(asked)
        states = await asyncio.to_thread(_read, content)
        for state in states:
            world.served.check(state)
        return {"state": self._program.keep(states)}, {}

    async def _download(self, asked: Parcel) -> Answer:
        states = self._program.states(asked.fields["state"], asked.fields.get("seeds"))
        content = await asyncio.to_thread(_written, states)
        return {}, {"file": np.frombuffer(content, np.uint8)}

    async def _decode(self, asked: Parcel) -> Answer:
        def decode(world: World) -> np.ndarray:
            return decode_latents(world.parts, latents.to(world.device)).cpu().numpy()

        latents = self._latents(asked)
        return {}, {"pixels": await self._call(asked, decode)}

    async def _heads(self, asked: Parcel) -> Answer:
        def predict(world: World) -> dict[str, np.ndarray]:
            heads = world.parts.heads
            require(heads is not None, f"{world.spec.name} has no heads")
            assert heads is not None
            said = heads(seen.to(world.device))
            events = {f"event.{name}": x for name, x in said.get("events", {}).items()}
            found = {"reward": said["reward"], "end": said["end"], **events}
            return {name: x.float().cpu().numpy() for name, x in found.items()}

        seen = self._latents(asked, before=True)
        return {}, await self._call(asked, predict)

    async def _read(self, asked: Parcel) -> Answer:
        got = asked.fields
        text = check_text("text", got["text"], self._hub.config.limits)
        queue = None if got.get("queue") is None else CommandQueue.from_record(got["queue"])

        def read(world: World) -> dict[str, Any]:
            reader = world.interpreter
            reading = reader.verbatim(text) if got.get("verbatim") else reader.read(text, queue)
            steps = [[step.command, step.chunks] for step in reading.steps]
            return {
                "text": reading.text,
                "command": reading.command,
                "confidence": reading.confidence,
                "steps": steps,
                "answer": reading.answer,
            }

        served = self._hub.world(got.get("world") or self._default)
        return await asyncio.wrap_future(served.batcher.call(self._program, read)), {}

    def _world(self, asked: Parcel) -> ProgramWorld:
        return self._program.world(asked.fields.get("id"))

    def _latents(self, asked: Parcel, before: bool = False) -> Tensor:
        """``before``: the chunk before may be in front."""
        latents, shape = asked.arrays["latents"], self._world(asked).served.world.latent_shape
        limit = self._program.limits.rows
        allowed = [shape, (shape[0], 2 * shape[1], *shape[2:])] if before else [shape]
        require(
            latents.shape[1:] in allowed and 1 <= len(latents) <= limit,
            f"latents have shape {latents.shape}; expected (1 .. {limit}, *{shape})",
        )
        return torch.from_numpy(latents)

    async def _call(self, asked: Parcel, function: Callable[[World], Any]) -> Any:
        batcher = self._world(asked).served.batcher
        return await asyncio.wrap_future(batcher.call(self._program, function))

    def _told(self, world: ProgramWorld, made: Sequence[Made]) -> Answer:
        prompts = [one.state.prompts[0] for one in made]
        fields: dict[str, Any] = {
            "index": [p.steps for p in prompts],
            "prompts": [p.command for p in prompts],
            "lands": [p.lands for p in prompts],
            "skip": [one.skip for one in made],
            "together": max(one.together for one in made),
        }
        arrays = {
            "latents": torch.stack([one.latents for one in made]).numpy(),
            "pixels": np.stack([one.frames for one in made]),
        }
        if all(row is not None for row in world.rows):
            kept, newest = self._kept(world.started(range(len(world.rows))))
            return {**fields, **kept}, {**arrays, **newest}
        return fields, arrays

    def _kept(self, states: Sequence[Snapshot]) -> Answer:
        rows = [state.state.rows[0] for state in states]
        fields: dict[str, Any] = {
            "state": self._program.keep(states),
            "prompt_states": [asdict(state.prompts[0]) for state in states],
            "row_states": [
                {
                    "seed": row.seed,
                    "window": asdict(row.window),
                    "clean_pending": row.clean_pending,
                    "start_chunk": row.start_chunk,
                }
                for row in rows
            ],
        }
        newest = torch.cat([state.state.newest_clean.float().cpu() for state in states])
        return fields, {"newest": newest.numpy()}


_ASKED = (
    "hello", "open", "reset", "step", "snapshot", "restore", "upload", "download", "decode",
    "heads", "read",
)  # fmt: skip


def _per_row(asked: Parcel, name: str, count: int) -> list[np.ndarray | None]:
    if name not in asked.arrays:
        return [None] * count
    given = asked.arrays[name]
    if given.ndim == (4 if name == "image" else 5):
        require(
            len(given) == count, f"{name} has {len(given)} entries, but there are {count} worlds"
        )
        return list(given)
    return [given] * count


def _read(content: bytes) -> States:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        path.write_bytes(content)
        whole = Snapshot.load(path)
    return tuple(row_of(whole, row) for row in range(whole.num_worlds))


def _written(states: States) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        joined(states).save(path)
        return path.read_bytes()
