"""Commands in words: their phrasings as features for the trainer, and proposals for new ones.

Where an environment names its actions, the names are turned into phrases ("RIGHTFIRE" is "go right
and fire"); where it does not, they are counted. What is proposed is there to be edited: 20 good
phrasings of your own teach the words better than these.

Legend: P phrasings, L rows of the longest, C channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from magi_world.model.static_text import StaticTextEncoder

Split = Literal["train", "held_out"]


@dataclass(frozen=True)
class CommandConfig:
    """One command: key names that play it, phrasings trained on, phrasings kept for the test.

    opposite: the command that undoes it, which "back" means, '' = none; chunks: how long it takes
    by itself, in a sentence that goes on with something else.
    """

    phrases: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    keys: tuple[str, ...] = field(default=())
    opposite: str = ""
    chunks: int = 1

    def __post_init__(self) -> None:
        if not self.phrases:
            raise ValueError("CommandConfig.phrases is empty; give at least one phrasing")
        if both := set(self.phrases) & set(self.held_out):
            raise ValueError(f"CommandConfig.held_out repeats trained phrasings {sorted(both)}")


class PhraseTable:
    """Features of every phrasing of every command.

    Args:
        commands: command -> its phrasings. The command itself counts as a trained phrasing.
    """

    def __init__(self, encoder: StaticTextEncoder, commands: Mapping[str, CommandConfig]) -> None:
        self.commands = list(commands)
        self.phrases: dict[str, list[list[str]]] = {
            "train": [[name, *c.phrases] for name, c in commands.items()],
            "held_out": [list(c.held_out) for c in commands.values()],
        }
        flat: dict[str, None] = {}
        for lists in self.phrases.values():
            flat.update((p, None) for phrases in lists for p in phrases)
        features = {p: encoder.encode(p) for p in flat}
        if empty := [p for p, f in features.items() if len(f) == 0]:
            raise ValueError(f"phrasings {empty} have no piece in the text vocabulary")
        longest = max(len(f) for f in features.values())
        self._row = {p: i for i, p in enumerate(flat)}
        self.features = torch.zeros(len(flat), longest, encoder.channels)
        self.mask = torch.zeros(len(flat), longest, dtype=torch.bool)
        for p, f in features.items():
            self.features[self._row[p], : len(f)] = f
            self.mask[self._row[p], : len(f)] = True

    def rows(self, phrases: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Features (n, L, C) and mask (n, L) of phrasings of this table."""
        index = torch.tensor([self._row[p] for p in phrases])
        return self.features[index], self.mask[index]

    def draw(
        self,
        command: Tensor,
        generator: torch.Generator,
        split: str = "train",
        word_drop: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """A random phrasing for each entry of ``command`` (any shape).

        word_drop: chance that a caption loses single word rows; its first row, the mean of all
            words, always stays, so that nothing is lost but redundancy.

        Returns:
            features (*shape, L, C) and mask (*shape, L).
        """
        lists = self.phrases[split]
        pick = torch.rand(command.numel(), generator=generator).tolist()
        names = [
            lists[c][int(u * len(lists[c]))]
            for c, u in zip(command.flatten().tolist(), pick, strict=True)
        ]
        features, mask = self.rows(names)
        if word_drop:
            lossy = torch.rand(len(names), 1, generator=generator) < word_drop
            lose = torch.rand(mask.shape, generator=generator) < 0.3
            lose[:, 0] = False
            mask = mask & ~(lossy & lose)
        return features.view(*command.shape, *features.shape[1:]), mask.view(*command.shape, -1)


# Single words of action names that mean a movement -> the command they become.
WORDS = {
    "noop": "do nothing",
    "none": "do nothing",
    "nothing": "do nothing",
    "idle": "do nothing",
    "stay": "do nothing",
    "wait": "do nothing",
    "left": "go left",
    "right": "go right",
    "up": "go up",
    "down": "go down",
    "forward": "go forward",
    "forwards": "go forward",
    "backward": "go backward",
    "back": "go backward",
    "pickup": "pick up",
}


# Every phrasing of a command that is common enough to have some; the last six are held out.
COMMON: dict[str, tuple[str, ...]] = {
    "do nothing": (
        "wait",
        "stay",
        "stand still",
        "stay still",
        "do not move",
        "don't move",
        "hold still",
        "stop",
        "pause",
        "rest",
        "freeze",
        "keep still",
        "remain where you are",
        "no action",
        "stay where you are",
        "wait a moment",
        "be still",
        "halt",
        "stop moving",
        "stay put",
        "please wait",
        "stay here",
        "wait here",
        "hold on",
        "do not do anything",
        "remain still",
    ),
}

_GO = (
    "{d}", "move {d}", "head {d}", "keep going {d}", "walk {d}", "run {d}", "step {d}",
    "travel {d}", "proceed {d}", "go {d} now", "move {d} now", "please go {d}", "now {d}",
    "continue {d}", "a step {d}", "let us go {d}", "keep moving {d}", "advance {d}",
    "start going {d}", "take a step {d}",
    "please move {d}", "head off {d}", "walk on {d}", "go further {d}", "now go {d}",
    "make a move {d}",
)  # fmt: skip

_SIDE = (
    "go to the {d}", "move to the {d}", "move towards the {d}", "to the {d}", "head to the {d}",
)  # fmt: skip

_TURN = (
    "turn to the {d}", "turn towards the {d}", "rotate {d}", "rotate to the {d}", "look {d}",
    "look to the {d}", "face {d}", "face to the {d}", "spin {d}", "spin to the {d}", "swing {d}",
    "pivot {d}", "turn {d} now", "please turn {d}", "{d} turn", "make a {d} turn",
    "keep turning {d}",
    "rotate towards the {d}", "turn yourself {d}", "look towards the {d}",
    "turn {d} please", "pivot to the {d}", "turn round to the {d}", "swing to the {d}",
    "keep rotating {d}", "spin towards the {d}",
)  # fmt: skip

_ANY = (
    "{c} now", "please {c}", "{c} please", "now {c}", "just {c}", "try to {c}", "you should {c}",
    "let us {c}", "go and {c}", "go ahead and {c}", "I want you to {c}", "time to {c}", "{c} again",
    "{c} once", "can you {c}", "keep on and {c}", "start to {c}", "simply {c}", "{c} here",
    "do this: {c}",
    "could you {c}", "I would like you to {c}", "{c} right now", "you can {c}", "next {c}",
    "{c} at once",
)  # fmt: skip


HELD_OUT = 6


KEYS: dict[str, tuple[str, ...]] = {
    "do nothing": ("x",),
    "left": ("a", "left"),
    "right": ("d", "right"),
    "up": ("w", "up"),
    "forward": ("w", "up"),
    "down": ("s", "down"),
    "backward": ("s", "down"),
    "fire": ("space",),
    "jump": ("space",),
    "gas": ("w", "up"),
    "brake": ("s", "down"),
}

_SPARE = "1234567890eqrtfgzcvbjklmuiopynh"


def plain(name: str) -> str:
    """An action's name as a command: "RIGHTFIRE" -> "go right and fire"."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[_\-.:/]+", " ", name).lower().split()
    if len(words) == 1:
        words = _split(words[0])
    if len(words) == 1:
        return WORDS.get(words[0], words[0])
    ways = [w for w in words if w in ("left", "right", "up", "down")]
    rest = [w for w in words if w not in ways]
    if ways and rest == ["fire"]:
        return f"go {' '.join(ways)} and fire"
    if ways and not rest:
        return f"go {' '.join(ways)}"
    return " ".join(words)


def _split(word: str) -> list[str]:
    """Run-together movements of the Arcade Learning Environment: "upleftfire"."""
    parts = re.fullmatch(r"(up|down)?(left|right)?(fire)?", word)
    found = [p for p in parts.groups() if p] if parts else []
    return found if len(found) > 1 else [word]


def unique(names: Sequence[str]) -> list[str]:
    """The names, numbered where two are the same."""
    out: list[str] = []
    for name in names:
        count = 2
        tried = name
        while tried in out:
            tried, count = f"{name} {count}", count + 1
        out.append(tried)
    return out


def phrasings(command: str) -> tuple[list[str], list[str]]:
    """(trained, held-out) ways to say a command, beside the command itself."""
    way = re.fullmatch(
        r"(go|turn|steer|look|push|move) (left|right|up|down|forward|backward)", command
    )
    if command in COMMON:
        said = list(COMMON[command])
    elif way and way[1] in ("turn", "look"):
        said = [p.format(d=way[2]) for p in _TURN]
    elif way and way[1] in ("go", "move"):
        said = [p.format(d=way[2]) for p in _GO]
        if way[2] in ("left", "right"):
            said = [p.format(d=way[2]) for p in _SIDE] + said
    elif way:
        sides = [f"{way[1]} to the {way[2]}", f"{way[1]} it {way[2]}", way[2], f"to the {way[2]}"]
        said = sides + [p.format(c=command) for p in _ANY]
    else:
        said = [p.format(c=command) for p in _ANY]
    said = list(dict.fromkeys(p for p in said if p != command))
    return said[:-HELD_OUT], said[-HELD_OUT:]


def worded(commands: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """command -> its keys, phrases and held-out phrases; no phrasing and no key is there twice."""
    taken_keys: set[str] = set()
    said: set[str] = {c.lower() for c in commands}
    out: dict[str, dict[str, list[str]]] = {}
    for command in commands:
        trained, held = ([p for p in part if p.lower() not in said] for part in phrasings(command))
        said |= {p.lower() for p in (*trained, *held)}
        out[command] = {"keys": _keys(command, taken_keys), "phrases": trained, "held_out": held}
    for command, entry in out.items():
        if not entry["keys"]:
            entry["keys"] = [k for k in _SPARE if k not in taken_keys][:1]
            taken_keys |= set(entry["keys"])
        if not entry["phrases"]:
            entry["phrases"] = [f"{command}, please"]
    return out


def _keys(command: str, taken: set[str]) -> list[str]:
    """Keys that stand for the command by its meaning; a combination for two movements at once."""
    words = [w for w in KEYS if re.search(rf"\b{w}\b", command)]
    found = [KEYS[w] for w in words]
    keys = list(found[0]) if len(found) == 1 else ["+".join(k[0] for k in found)] if found else []
    free = [k for k in keys if k not in taken]
    taken |= set(free)
    return free


def mirrored(commands: Sequence[str]) -> bool:
    """Whether every command has its twin with left and right swapped, and some differ from it."""
    swap = {"left": "right", "right": "left"}
    twins = [" ".join(swap.get(w, w) for w in c.split(" ")) for c in commands]
    return set(twins) == set(commands) and twins != list(commands)
