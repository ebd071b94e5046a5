"""The page's WebSocket: what it may ask, what it is told, and what there is to see.

A message is a JSON object with ``type`` and the fields of that type:

    say text          key key down      release
    pause on          step              rewind chunk
    whatif commands   future row text   further       keep row      drop
    save slot         load slot         reset seed start scene
    world name        chip number       clear
    ping time
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from magi_world.checks import check_prompt
from magi_world.demos.server.batching import Begin
from magi_world.demos.server.config import Allowance, Limits, TooFast
from magi_world.demos.server.hub import Full, Hub
from magi_world.demos.server.pictures import Outbox
from magi_world.demos.server.visitor import Visitor
from magi_world.demos.timeline import suggested_commands

_FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "say": {"text": (str,)},
    "key": {"key": (str,), "down": (bool,)},
    "release": {},
    "pause": {"on": (bool,)},
    "step": {},
    "rewind": {"chunk": (int,)},
    "whatif": {"commands": (list, type(None))},
    "future": {"row": (int,), "text": (str,)},
    "further": {},
    "keep": {"row": (int,)},
    "drop": {},
    "save": {"slot": (int,)},
    "load": {"slot": (int,)},
    "reset": {
        "seed": (int, type(None)),
        "start": (int, str, type(None)),
        "scene": (str, type(None)),
    },
    "world": {"name": (str,)},
    "chip": {"number": (int,)},
    "clear": {},
    "ping": {"time": (int, float)},
}  # fmt: skip


@dataclass(frozen=True)
class Message:
    """A message that is as it should be. Fields that may be null and were left out are None."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]


def parse(raw: str, limits: Limits) -> Message:
    """Read a message.
    Raises ValueError: no JSON object, an unknown type, a field that is missing or wrong.
    """
    if len(raw) > 16 * limits.text + 1024:
        raise ValueError(f"a message has {len(raw)} characters, which is too long")
    try:
        record = json.loads(raw)
    except ValueError:
        raise ValueError(f"a message is {raw[:60]!r}; it must be a JSON object") from None
    if not isinstance(record, dict):
        raise ValueError(f"a message is {raw[:60]!r}; it must be a JSON object")
    kind = record.pop("type", None)
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise ValueError(f"type is {str(kind)[:60]!r}; it must be one of {', '.join(_FIELDS)}")
    wanted = _FIELDS[kind]
    for name in record:
        if name not in wanted:
            raise ValueError(
                f"{kind} has no field {name[:60]!r}; it has {', '.join(wanted) or 'none'}"
            )
    fields: dict[str, Any] = {}
    for name, kinds in wanted.items():
        value = record.get(name)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            right = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
            raise ValueError(f"{kind}.{name} is {str(value)[:60]!r}; it must be {right}")
        fields[name] = value
    _check_texts(kind, fields, limits)
    return Message(kind, fields)


def check_text(name: str, text: object, limits: Limits) -> str:
    """A sentence or scene of a visitor.
    Raises ValueError: no text, empty, or longer than is allowed.
    """
    if not isinstance(text, str):
        raise ValueError(f"{name} is {str(text)[:60]!r}; it must be a text")
    if len(text) > limits.text:
        raise ValueError(f"{name} has {len(text)} characters; at most {limits.text} are allowed")
    return check_prompt(text)


def _check_texts(kind: str, fields: dict[str, Any], limits: Limits) -> None:
    for name in ("text", "scene"):
        if fields.get(name) is not None:
            check_text(f"{kind}.{name}", fields[name], limits)
    if isinstance(fields.get("start"), str) and fields["start"] != "text":
        raise ValueError(f"reset.start is {fields['start'][:60]!r}; it must be a number or 'text'")
    if fields.get("seed") is not None and not 0 <= fields["seed"] < 2**63:
        raise ValueError(f"reset.seed is {fields['seed']}; it must be 0 .. 2**63 - 1")
    commands = fields.get("commands")
    if commands is not None:
        if not 2 <= len(commands) <= 4:
            raise ValueError(f"whatif.commands has {len(commands)} entries; it must have 2 to 4")
        for command in commands:
            check_text("whatif.commands", command, limits)


# Codes with which a WebSocket is closed; 4000 and up are an application's own.
FULL, WRONG, IDLE, REPLACED, SLOW = 4001, 4002, 4003, 4004, 4005


async def page_socket(socket: WebSocket, hub: Hub) -> None:
    await socket.accept()
    query = socket.query_params
    try:
        visitor = hub.visitor(
            query.get("visit", ""), query.get("key", ""), query.get("world") or None
        )
    except (Full, ValueError) as error:
        code = FULL if isinstance(error, Full) else WRONG
        await _refuse(socket, "visitors" if code == FULL else "visit", str(error), code)
        return
    visitor.outbox.say("replaced")  # whoever had this visit in another tab
    visitor.outbox = outbox = Outbox()
    visitor.connected, visitor.seen = True, monotonic()
    visitor.welcome(hub, back=visitor.past.current is not None)
    visitor.nudge()
    send = asyncio.create_task(_send(socket, outbox))
    receive = asyncio.create_task(_receive(socket, visitor, hub, outbox))
    try:
        await asyncio.wait({send, receive}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (send, receive):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await task
        if visitor.outbox is outbox:
            visitor.connected, visitor.seen = False, monotonic()
            visitor.plan.release()
            visitor.nudge()


async def _send(socket: WebSocket, outbox: Outbox) -> None:
    while not outbox.overrun:
        item = await outbox.next()
        if isinstance(item, bytes):
            await socket.send_bytes(item)
        else:
            await socket.send_text(item)
            if item == '{"type": "replaced"}':
                await socket.close(REPLACED, "this visit goes on in another tab")
                return
    await socket.close(SLOW, "too many messages were left unread")


async def _receive(socket: WebSocket, visitor: Visitor, hub: Hub, outbox: Outbox) -> None:
    limits = hub.config.limits
    allowance = Allowance("messages", limits.messages)
    active = monotonic()
    while True:
        left = limits.idle - (monotonic() - active)
        try:
            raw = await asyncio.wait_for(socket.receive_text(), max(0.01, left))
        except TimeoutError:
            minutes = f"{limits.idle / 60:g} minutes"
            await _refuse(
                socket, "idle", f"nothing was asked for {minutes}, so the world rests", IDLE
            )
            return
        except (WebSocketDisconnect, RuntimeError, KeyError):
            return
        try:
            allowance.take()
            message = parse(raw, limits)
            if message.kind != "ping":
                active = monotonic()
            await perform(visitor, hub, message)
        except TooFast as error:
            outbox.say("refused", field="messages", message=str(error), wait=error.wait)
        except (ValueError, OSError) as error:
            outbox.say("refused", field="", message=str(error))


async def perform(visitor: Visitor, hub: Hub, message: Message) -> None:
    """Do what was asked. Raises ValueError, OSError: it cannot be done; nothing has changed."""
    match message.kind:
        case "ping":
            visitor.outbox.say("pong", time=message["time"])
        case "say":
            _say(visitor, message["text"])
        case "key":
            if not message["down"]:
                visitor.plan.release(message["key"])
                visitor.nudge()
            elif visitor.plan.press(message["key"]) is not None:
                visitor.changed()
        case "release":
            visitor.plan.release()
            visitor.nudge()
        case "chip":
            visitor.plan.edit(message["number"], ())
            visitor.changed()
            visitor.tell()
        case "clear":
            visitor.plan.clear()
            visitor.changed()
            visitor.tell()
        case "pause":
            visitor.pause(message["on"])
            visitor.tell()
        case "step":
            visitor.step_once()
            visitor.tell()
        case "rewind":
            visitor.rewind(message["chunk"])
            visitor.tell()
        case "save":
            await visitor.save(message["slot"])
            visitor.tell()
            visitor.outbox.say("note", level="info", text=f"saved in slot {message['slot']}")
        case "load":
            visitor.load(message["slot"])
        case "reset":
            visitor.paused = False
            visitor.begin(Begin(message["seed"], message["scene"], start=message["start"]))
        case "world":
            visitor.open(hub.world(message["name"]))
            visitor.welcome(hub, False)
        case _:
            _fork(visitor, message)


def _fork(visitor: Visitor, message: Message) -> None:
    futures = visitor.futures
    if message.kind == "whatif":
        commands = message["commands"] or _suggested(visitor)
        visitor.what_if(commands)
        visitor.tell_futures()
        visitor.tell()
    elif message.kind == "drop":
        visitor.drop_futures()
        visitor.tell()
    elif futures is None:
        raise ValueError(f"{message.kind} needs futures to choose from; ask for whatif first")
    elif message.kind == "keep":
        visitor.keep(message["row"])
    elif message.kind == "further":
        if not futures.further():
            raise ValueError(f"{futures.wanted} chunks are as far as futures are imagined")
        visitor.nudge()
    else:
        reading = visitor.served.interpreter.read(message["text"], visitor.plan.words)
        if not reading.obeyed:
            visitor.tell_reading(reading)
            return
        futures.say(message["row"], reading.steps[0].command)
        visitor.nudge()
        visitor.tell_futures()


def _say(visitor: Visitor, text: str) -> None:
    reading = visitor.served.interpreter.read(text, visitor.plan.words)
    visitor.note(reading)
    if reading.obeyed:
        visitor.plan.enqueue(reading.steps)
        visitor.changed()
    visitor.tell_reading(reading)
    visitor.tell()


def _suggested(visitor: Visitor) -> list[str]:
    current = visitor.past.current
    command = "" if current is None else current.command
    return list(suggested_commands(command, visitor.served.spec, 4))


async def _refuse(socket: WebSocket, field: str, message: str, code: int) -> None:
    if socket.application_state is WebSocketState.CONNECTED:
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await socket.send_json({"type": "refused", "field": field, "message": message})
            await socket.close(code, message[:120])
