"""What a page may ask for: each message is checked here before anything is done.

A message is a JSON object with ``type`` and the fields of that type:

    say text          key key down      release
    pause on          step              rewind chunk
    whatif commands   future row text   further       keep row      drop
    save slot         load slot         reset seed start scene
    world name        chip number       clear
    ping time
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from magi_world.demos.server.config import Limits
from magi_world.model.text import check_prompt

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

    Raises:
        ValueError: no JSON object, an unknown type, a field that is missing or wrong.
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

    Raises:
        ValueError: no text, empty, or longer than is allowed.
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
