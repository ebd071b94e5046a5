"""A session as a script, to be edited and recorded anew."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from magi_world.config import require
from magi_world.session.events import Note, Reset, StartFile, Step
from magi_world.session.player import Runs
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
    runs: Runs[_Said] = Runs()
    notes: tuple[str, ...] = ()
    for number, event in enumerate(session.events):
        says: Sequence[str | None] = ()
        if isinstance(event, Note):
            notes = (*notes, event.text)
        elif isinstance(event, Reset | Step):
            say = event.say if isinstance(event, Step) else None
            says = say if isinstance(say, tuple) else [say] * runs.count
            notes = notes if isinstance(event, Step) else ()
        try:
            runs.happened(event, [_Said(say, notes) for say in says])
        except ValueError as error:
            raise ValueError(f"{session.where(number)}: {error}") from None
        notes = () if says else notes
    said = runs.now.items[1:]
    require(bool(said), "the session made no chunk; there is nothing to write a script of")
    return runs.now.reset, said


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
