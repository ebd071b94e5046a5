"""The sentences of sentences.yaml, and whether a world reads them right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from magi_world.language import CommandQueue, Interpreter, Step
from magi_world.world.spec import WorldSpec

FILE = Path(__file__).with_name("sentences.yaml")


@dataclass(frozen=True)
class Sentence:
    """means: () is not known.    said, after: what came before it."""

    say: str
    means: tuple[str, ...] = ()
    after: str | None = None
    said: str | None = None


def sentences(spec: WorldSpec) -> list[Sentence]:
    """Those for a world: all of its kind, moves alone or goals as well."""
    kinds = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    mine: tuple[str, ...] = ("tiles",)
    if "turn left" in spec.command_names:
        mine = ("everywhere", "goals" if "go to the red wall" in spec.command_names else "moves")
    found = []
    for kind in mine:
        known = kinds[kind]["known"]
        found += [Sentence(**{**one, "means": tuple(one["means"])}) for one in known]
        found += [Sentence(text) for text in kinds[kind]["unknown"]]
    return found


def expected(spec: WorldSpec, means: tuple[str, ...]) -> tuple[Step, ...]:
    """ "turn left x2" as a step of so many chunks."""
    once = {c.name: c.chunks for c in spec.commands}
    steps: list[Step] = []
    for i, one in enumerate(means):
        name, _, amount = one.rpartition(" ")
        chunks: float | None
        if one in once:
            name = one
            chunks = None if i == len(means) - 1 else once[name]
        elif amount.startswith("x"):
            chunks = int(amount[1:]) * once[name]
        else:
            value, unit = float(amount[:-1]), amount[-1]
            rate = {"s": spec.fps / spec.frames_per_chunk, "c": 1, "f": 1 / spec.frames_per_chunk}
            chunks = max(1, round(value * rate[unit]))
        steps.append(Step(name, chunks if chunks is None else int(chunks)))
    return tuple(steps)


def read(interpreter: Interpreter, sentence: Sentence) -> Any:
    """The reading of a sentence in its state."""
    queue = CommandQueue(rest=interpreter.spec.default_command)
    if sentence.after is not None:
        queue = queue.told(sentence.after)
    if sentence.said is not None:
        queue = queue.say(interpreter.read(sentence.said))
        while queue.to_come:
            _, queue = queue.next()
    return interpreter.read(sentence.say, queue)


def mistakes(interpreter: Interpreter) -> tuple[list[str], list[str], int, int]:
    """Known sentences that are read wrong, unknown ones that are obeyed, and how many of each."""
    wrong, obeyed = [], []
    all_of_them = sentences(interpreter.spec)
    for sentence in all_of_them:
        reading = read(interpreter, sentence)
        told = f"{sentence.say!r} -> {reading.answer} ({reading.confidence:.2f})"
        if not sentence.means and reading.obeyed:
            obeyed.append(told)
        elif sentence.means and reading.steps != expected(interpreter.spec, sentence.means):
            wrong.append(f"{told}, not {', '.join(sentence.means)}")
    known = sum(bool(s.means) for s in all_of_them)
    return wrong, obeyed, known, len(all_of_them) - known
