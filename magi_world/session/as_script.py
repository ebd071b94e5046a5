"""A session as a script, to be edited and recorded anew."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from magi_world.config import require
from magi_world.session.events import Fork, Keep, Load, Note, Reset, Rewind, Save, StartFile, Step
from magi_world.session.session import Session


@dataclass(frozen=True)
class _Said:
    """A chunk of a timeline: what was said for it, and what was remarked before it."""

    say: str | None
    notes: tuple[str, ...] = ()


def script_text(session: Session, title: str, folder: Path = Path()) -> str:
    """The script that makes a session's last timeline: what was rewound or not kept is gone.

    Args:
        folder: where the script will lie; a start file is named from there.

    Raises:
        ValueError: a session of several worlds, or one that goes on from an earlier session.
    """
    require(session.header.num_worlds == 1, "a script has one world; the session has several")
    reset, said_list = _last_timeline(session)
    lines = [f"title: {_quoted(title)}", f"world: {_quoted(session.header.world)}"]
    lines.append(f"seed: {reset.seeds[0]}")
    if isinstance(reset.start, StartFile):
        path = os.path.relpath(session.folder / reset.start.path, folder)
        lines.append(f"start: {{{reset.start.kind}: {_quoted(path)}}}")
    elif reset.start is not None:
        lines.append(f"start: {reset.start}")
    if isinstance(reset.scene, str):
        lines.append(f"scene: {_quoted(reset.scene)}")
    lines += [f"num_steps: {session.header.num_steps}"]
    lines += [
        f"window_size: {session.header.window_size}",
        "strict: false  # what is said is taken as it is; without this it is read as sentences",
        "script:",
    ]
    for said, run in groupby(said_list):
        count = len(list(run)) if not said.notes else 1
        *alone, last = said.notes or ("",)
        lines += [f"  - {{note: {_quoted(note)}}}" for note in alone]
        first = "" if said.say is None else f"say: {_quoted(said.say)}, "
        note = f", note: {_quoted(last)}" if last else ""
        lines.append(f"  - {{{first}for: {count}{note}}}")
    return "\n".join(lines) + "\n"


def _last_timeline(session: Session) -> tuple[Reset, list[_Said]]:
    reset, past, futures = Reset((0,)), list[_Said](), list[list[_Said]]()
    slots: dict[str, tuple[Reset, list[_Said]]] = {}
    notes: tuple[str, ...] = ()
    for number, event in enumerate(session.events):
        match event:
            case Reset():
                reset, past, notes = event, [], ()
            case Note(text):
                notes = (*notes, text)
            case Step(say=say):
                timelines = futures or [past]
                for timeline, one in zip(timelines, _per_future(say, len(timelines)), strict=True):
                    timeline.append(_Said(one, notes))
                notes = ()
            case Rewind(chunk):
                past = past[:chunk]
            case Save(slot, chunk):
                slots[slot] = reset, past[:chunk]
            case Load(slot):
                require(
                    slot in slots, f"{session.where(number)}: slot {slot!r} is of another session"
                )
                reset, past = slots[slot][0], list(slots[slot][1])
            case Fork(count):
                futures = [list(past) for _ in range(count)]
            case Keep(future):
                past, futures = futures[future], []
    require(bool(past), "the session made no chunk; there is nothing to write a script of")
    return reset, past


def _per_future(say: str | Sequence[str | None] | None, count: int) -> Sequence[str | None]:
    return [say] * count if say is None or isinstance(say, str) else say


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
