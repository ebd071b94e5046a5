"""The page's WebSocket: reads what is asked, sends what there is to see."""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from magi_world.demos.server import telling
from magi_world.demos.server.allowance import Allowance, TooFast
from magi_world.demos.server.batching import Begin
from magi_world.demos.server.hub import Full, Hub
from magi_world.demos.server.messages import Message, parse
from magi_world.demos.server.outbox import Outbox
from magi_world.demos.server.visitor import Visitor
from magi_world.demos.window.futures import suggested_commands

# Codes with which a WebSocket is closed; 4000 and up are an application's own.
FULL, WRONG, IDLE, REPLACED, SLOW = 4001, 4002, 4003, 4004, 4005


async def page_socket(socket: WebSocket, hub: Hub) -> None:
    """Serve one browser until it goes."""
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
    telling.welcome(visitor, hub, back=visitor.past.current is not None)
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
    """Do what was asked.

    Raises:
        ValueError, OSError: it cannot be done; nothing has changed.
    """
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
            visitor.plan.drop(message["number"])
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
            telling.welcome(visitor, hub, False)
        case _:
            _fork(visitor, message)


def _fork(visitor: Visitor, message: Message) -> None:
    futures = visitor.futures
    if message.kind == "whatif":
        commands = message["commands"] or _suggested(visitor)
        visitor.what_if(commands)
        telling.tell_futures(visitor)
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
        reading = visitor.served.interpreter.read(message["text"], visitor.plan.queue)
        if not reading.obeyed:
            telling.tell_reading(visitor, reading)
            return
        futures.say(message["row"], reading.steps[0].command)
        visitor.nudge()
        telling.tell_futures(visitor)


def _say(visitor: Visitor, text: str) -> None:
    reading = visitor.served.interpreter.read(text, visitor.plan.queue)
    visitor.note(reading)
    if reading.obeyed:
        visitor.plan.say(reading)
        visitor.changed()
    telling.tell_reading(visitor, reading)
    telling.tell(visitor)


def _suggested(visitor: Visitor) -> list[str]:
    current = visitor.past.current
    command = "" if current is None else current.command
    return list(suggested_commands(command, visitor.served.spec, 4))


async def _refuse(socket: WebSocket, field: str, message: str, code: int) -> None:
    if socket.application_state is WebSocketState.CONNECTED:
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await socket.send_json({"type": "refused", "field": field, "message": message})
            await socket.close(code, message[:120])
