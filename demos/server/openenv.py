"""The door for trainers of language models: the protocol of OpenEnv, on /ws and over HTTP.

An action is {"text": "turn left"}; an empty text goes on with what was said before. An observation
has the picture as a PNG in base64, and what the text was understood as. One step is one chunk.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from magi_world import __version__
from magi_world.demos.server.batching import Made
from magi_world.demos.server.config import TooFast
from magi_world.demos.server.hub import Full, Hub
from magi_world.demos.server.programs import SinglePlay, png
from magi_world.language import Reading, understood

ENDS = 0.5  # probability of an end from which an episode is over

_METADATA = {"type": "object", "additionalProperties": True, "default": {}}
SCHEMA: dict[str, Any] = {
    "action": {
        "title": "MagiWorldAction",
        "type": "object",
        "properties": {
            "text": {"type": "string", "description": "what should happen; empty goes on"},
            "metadata": _METADATA,
        },
        "required": ["text"],
        "additionalProperties": False,
    },
    "observation": {
        "title": "MagiWorldObservation",
        "type": "object",
        "properties": {
            "image": {"type": "string", "description": "PNG of the newest frame, base64"},
            "text": {"type": "string", "description": "what became of the text, for reading"},
            "command": {"type": "string", "description": "the command in force"},
            "understood": {"type": "object"},
            "commands": {"type": "array", "items": {"type": "string"}},
            "chunk": {"type": "integer"},
            "events": {"type": "object"},
        },
    },
    "state": {
        "title": "MagiWorldState",
        "type": "object",
        "properties": {
            "episode_id": {"type": ["string", "null"]},
            "step_count": {"type": "integer", "minimum": 0},
            "world": {"type": "string"},
            "seed": {"type": ["integer", "null"]},
            "command": {"type": ["string", "null"]},
            "max_chunks": {"type": ["integer", "null"]},
        },
    },
}


class Invalid(ValueError):
    """A message of the wrong form."""


class Episode:
    """One environment: reset, step, state."""

    def __init__(self, hub: Hub) -> None:
        self._play = SinglePlay(hub.world(None), hub.config.limits)
        self._id: str | None = None
        self._most: int | None = None
        self._steps = 0
        self._over = False

    async def reset(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Begin an episode. ``given`` may have seed, episode_id, prompt, start, max_chunks.
        Raises ValueError: a field of the wrong kind.
        """
        most = given.get("max_chunks")
        if most is not None and (not isinstance(most, int) or most < 1):
            raise Invalid(f"max_chunks is {most!r:.40}; it must be a whole number from 1, or null")
        await self._play.reset(given.get("seed"), given.get("prompt"), given.get("start"))
        self._id = str(given.get("episode_id") or secrets.token_hex(8))[:255]
        self._most, self._steps, self._over = most, 0, False
        names = ", ".join(self._play.served.spec.command_names)
        told = f"A new world. It knows: {names}." if names else "A new world."
        return {"observation": self._seen(told, None, {}), "reward": None, "done": False}

    async def step(self, action: Mapping[str, Any]) -> dict[str, Any]:
        """One chunk under the text of the action.
        Raises ValueError: an action of the wrong form, or an episode that is over.
        """
        text = action.get("text")
        if extra := sorted(set(action) - {"text", "metadata"}):
            raise Invalid(f"the action has {extra[0]!r}; it may have text and metadata")
        if not isinstance(text, str):
            raise Invalid(f"action.text is {text!r:.40}; it must be a text")
        if self._over:
            raise ValueError("the episode is over; call reset")
        reading = await self._play.say(text) if text.strip() else None
        made = await self._play.step()
        self._steps += 1
        predicted = await self._play.predicted(made.seen) or {}
        ended = predicted.get("end", 0.0) >= ENDS
        self._over = ended or (self._most is not None and self._steps >= self._most)
        told = self._told(reading, made)
        return {
            "observation": self._seen(told, reading, predicted.get("events", {})),
            "reward": float(predicted.get("reward", 0.0)),
            "done": self._over,
        }

    @property
    def state(self) -> dict[str, Any]:
        play = self._play
        return {
            "episode_id": self._id,
            "step_count": self._steps,
            "world": play.served.source,
            "seed": play.seed if play.started else None,
            "command": play.command if play.started else None,
            "max_chunks": self._most,
        }

    def _told(self, reading: Reading | None, made: Made) -> str:
        if reading is None:
            return f"in force: {made.command}"
        return f"understood as {reading.answer}" if reading.obeyed else reading.answer

    def _seen(
        self, told: str, reading: Reading | None, events: Mapping[str, float]
    ) -> dict[str, Any]:
        play = self._play
        return {
            "image": base64.b64encode(png(play.frame)).decode(),
            "text": told,
            "command": play.command,
            "understood": understood(reading, play.queue),
            "commands": list(play.served.spec.command_names),
            "chunk": play.chunk,
            "events": dict(events),
        }


def openenv_routes(hub: Hub) -> list[BaseRoute]:
    async def socket(websocket: WebSocket) -> None:
        await _serve(websocket, hub)

    async def metadata(request: Request) -> Response:
        spec = hub.world(None).spec
        about = spec.description or "a live video world that obeys text"
        record = {"name": f"magi-world/{spec.name}", "description": about, "version": __version__}
        return JSONResponse(record)

    async def schema(request: Request) -> Response:
        return JSONResponse(SCHEMA)

    async def state(request: Request) -> Response:
        return JSONResponse(Episode(hub).state)

    # Over HTTP every request is an episode of its own, as in OpenEnv's own server.
    async def reset(request: Request) -> Response:
        return await _http(request, hub, lambda episode, body: episode.reset(body))

    async def step(request: Request) -> Response:
        async def begun(episode: Episode, body: Mapping[str, Any]) -> dict[str, Any]:
            await episode.reset({"seed": 0})
            return await episode.step(_mapping(body.get("action"), "action"))

        return await _http(request, hub, begun)

    return [
        WebSocketRoute("/ws", socket),
        Route("/reset", reset, methods=["POST"]),
        Route("/step", step, methods=["POST"]),
        Route("/state", state),
        Route("/metadata", metadata),
        Route("/schema", schema),
    ]


async def _http(
    request: Request,
    hub: Hub,
    do: Callable[[Episode, Mapping[str, Any]], Awaitable[dict[str, Any]]],
) -> Response:
    episode = Episode(hub)
    try:
        hub.enter(episode)
        raw = await request.body()
        return JSONResponse(await do(episode, _mapping(json.loads(raw or b"{}"), "the body")))
    except Full as error:
        return JSONResponse({"detail": str(error)}, 503)
    except ValueError as error:
        return JSONResponse({"detail": str(error)}, 422)
    finally:
        hub.leave(episode)


async def _serve(socket: WebSocket, hub: Hub) -> None:
    await socket.accept()
    episode = Episode(hub)
    try:
        hub.enter(episode)
    except Full as error:
        await socket.send_json(_error(str(error), "CAPACITY_REACHED"))
        await socket.close()
        return
    try:
        while True:
            idle = hub.config.limits.idle
            try:
                raw = await asyncio.wait_for(socket.receive_text(), idle)
            except TimeoutError:
                text = f"nothing was asked for {idle / 60:g} minutes"
                await socket.send_json(_error(text, "SESSION_ERROR"))
                await socket.close()
                return
            answer = await _answer(episode, raw)
            if answer is None:
                await socket.close()
                return
            await socket.send_json(answer)
    except (WebSocketDisconnect, RuntimeError, KeyError):
        pass
    finally:
        hub.leave(episode)


async def _answer(episode: Episode, raw: str) -> dict[str, Any] | None:
    """The answer to one message; None ends the session."""
    try:
        message = json.loads(raw)
    except ValueError as error:
        return _error(f"Invalid JSON: {error}", "INVALID_JSON")
    try:
        kind = _mapping(message, "the message").get("type")
        match kind:
            case "reset":
                given = _mapping(message.get("data", {}), "data")
                return {"type": "observation", "data": await _paced(episode.reset, given)}
            case "step":
                action = _mapping(message.get("data"), "data")
                return {"type": "observation", "data": await _paced(episode.step, action)}
            case "state":
                return {"type": "state", "data": episode.state}
            case "close":
                return None
        return _error(f"Unknown message type: {kind!r:.40}", "UNKNOWN_TYPE")
    except Invalid as error:
        return _error(str(error), "VALIDATION_ERROR")
    except (ValueError, OSError) as error:
        return _error(str(error), "EXECUTION_ERROR")


async def _paced(
    do: Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Do it; the protocol has no word for "too fast", so a limit on the pace is waited for."""
    while True:
        try:
            return await do(given)
        except TooFast as error:
            await asyncio.sleep(error.wait)


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(f"{name} is {value!r:.40}; it must be a JSON object")
    return value


def _error(message: str, code: str) -> dict[str, Any]:
    return {"type": "error", "data": {"message": message, "code": code}}
