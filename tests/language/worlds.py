"""Worlds to read texts for, without their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from magi_world.io.package import read_record
from magi_world.io.records import build
from magi_world.language import Interpreter
from magi_world.loading import SHIPPED, find_package
from magi_world.model.static_text import StaticTextEncoder
from magi_world.world.spec import Command, WorldSpec

SHIPPED_WORLDS = sorted(p.parent.name for p in SHIPPED.glob("*/world.json"))
MOVES = ("turn left", "turn right", "walk forward", "walk backward", "strafe left", "strafe right")
OPPOSITES = dict(
    zip(MOVES, ("turn right", "turn left", *MOVES[3:1:-1], *MOVES[:3:-1]), strict=True)
)


@cache
def shipped(name: str) -> Interpreter:
    """A shipped world's own commands and text table."""
    folder = find_package(name)
    record = read_record(folder)
    spec = WorldSpec(
        name=name,
        frame_size=tuple(record["frame_size"]),
        frames_per_chunk=record["sampler"]["chunk_width"] * record["vae"].get("patch_length", 4),
        fps=record["fps"],
        commands=tuple(build(Command, c, "commands") for c in record["commands"]),
        default_command=record["default_command"],
        description=record["description"],
        threshold=record.get("threshold"),
        things=tuple(record.get("things", ())),
    )
    return Interpreter(spec, StaticTextEncoder(folder / "text"))


@cache
def with_goals() -> Interpreter:
    """The moves of a shipped world, and goals and scenes of a courtyard."""
    known = shipped(SHIPPED_WORLDS[0])
    moves = [c for c in known.spec.commands if c.name in (*MOVES, *_STILL)]
    goals = [
        *(
            _goal(f"{colour} wall", f"{colour} bricks")
            for colour in ("red", "blue", "yellow", "green")
        ),
        _goal("white pillar", "white column"),
        _goal("grey pillar", "grey column", "gray pillar"),
        Command("go to the medkit", _MEDKIT, ("fetch the medkit", "walk over to the medkit")),
        Command("turn around", _AROUND, ("turn yourself around", "do an about turn")),
        Command(
            "make it night", _NIGHT, ("let night fall", "put out the lights"), (), "make it day"
        ),
        Command(
            "make it day", _DAY, ("make it day time", "put on the lights"), (), "make it night"
        ),
    ]
    spec = replace(known.spec, name="goals", commands=(*moves, *goals), threshold=None, things=())
    return Interpreter(spec, known._encoder)


def interpreters() -> Mapping[str, Interpreter]:
    """All of them, by name."""
    made = {name: shipped(name) for name in SHIPPED_WORLDS}
    return {**made, "goals": with_goals()}


def _goal(*things: str) -> Command:
    ways = (
        "walk to the", "move to the", "head to the", "run to the", "go towards the",
        "go over to the",
        "walk up to the", "find the", "look for the", "show me the", "take me to the", "get to the",
        "approach the", "reach the", "visit the", "the",
    )  # fmt: skip
    phrases = tuple(f"{way} {thing}" for thing in things for way in ways)
    held = (f"head for the {things[0]}", f"make your way to the {things[0]}")
    return Command(f"go to the {things[0]}", (*phrases, *things), held)


_STILL = ("stand still", "walk forward while turning left", "walk forward while turning right")
_MEDKIT = (
    "go to a medkit", "walk to the medkit", "get the medkit", "take the medkit", "pick up a medkit",
    "pick up the medkit", "grab the medkit", "collect a medkit", "find a medkit",
    "go to the health pack",
    "get the health pack", "pick up the health pack", "get some health", "medkit",
    "approach the medkit",
)  # fmt: skip
_AROUND = (
    "turn round", "turn all the way around", "about face", "about turn", "make a U turn",
    "spin around", "face the other way", "turn the other way", "make a half turn",
)  # fmt: skip
_NIGHT = (
    "make it dark", "let it be night", "make night", "switch to night", "turn day into night",
    "night",
    "turn off the light", "turn the lights off", "switch off the lights", "lights off", "dark",
)  # fmt: skip
_DAY = (
    "make it bright", "let it be day", "make day", "switch to day", "turn night into day", "day",
    "turn on the light", "turn the lights on", "switch on the lights", "lights on", "daytime",
    "let there be light", "bright",
)  # fmt: skip
