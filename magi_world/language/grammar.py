"""The grammar of sentences: text -> clauses, each a command with how long and how often.

    sentence  = clause (separator clause)*
    separator = , ; . ! ? : "then" "and then" "after that" "afterwards" "next" "followed by"
                "finally", and "and" where both sides are commands and the whole is not a phrase
    clause    = [politeness] command [count] [duration] | "again" | "back" | "keep going"
    count     = "once" "twice" "thrice" | number "times" | number "x" | "x" number
    duration  = ["for"] number unit | "for a moment" | "until I say stop" | "forever"
    unit      = seconds, minutes, chunks, steps (a chunk each), frames
    number    = 2, 2.5, two, "a", "half a", "a couple of", "a few", "two and a half"

docs/words.md explains it to people. Nothing here knows a world: what is left of a clause without
its amount and its manners is matched by `magi_world.language.interpreter`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from magi_world.language.vocabulary import (
    CONDITIONS,
    ENDLESS,
    FILLERS,
    LEADS,
    MANNERS,
    MEASURES,
    OFTEN,
    QUANTITIES,
    QUESTIONS,
    SEPARATORS,
    SPECIAL,
    TAILS,
    UNITS,
    VAGUE,
    Kind,
    Unit,
)
from magi_world.language.words import number


class GrammarError(ValueError):
    """A sentence that says clearly what cannot be done; the message is for people."""


@dataclass(frozen=True)
class Amount:
    """How often, how long. times: whole. Endless has no other part."""

    times: int = 1
    length: float | None = None
    unit: Unit = "chunks"
    endless: bool = False
    given: bool = False


ONCE = Amount()


def clauses(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Words and punctuation cut at separators; none of the pieces is empty."""
    pieces: list[list[str]] = [[]]
    i = 0
    while i < len(words):
        if not words[i][0].isalnum():
            pieces.append([])
            i += 1
            continue
        for phrase in SEPARATORS:
            if tuple(words[i : i + len(phrase)]) == phrase:
                pieces.append([])
                i += len(phrase)
                break
        else:
            pieces[-1].append(words[i])
            i += 1
    joined: list[tuple[str, ...]] = []
    for piece in filter(None, pieces):
        if joined and piece[0] == "while":  # "walk forward, while turning left"
            joined[-1] += tuple(piece)
        else:
            joined.append(tuple(piece))
    return joined


def is_manners(words: Sequence[str]) -> bool:
    """Whether nothing is said but please and thank you."""
    return all(w in FILLERS or w in MANNERS for w in strip(words))


def strip(words: Sequence[str]) -> tuple[str, ...]:
    """A clause without manners at its ends: "could you please ... for me"."""
    words = list(words)
    changed = True
    while changed and words:
        before = len(words)
        while words and words[0] in FILLERS:
            words.pop(0)
        while words and words[-1] in FILLERS:
            words.pop()
        for phrase in LEADS:
            if len(words) > len(phrase) and tuple(words[: len(phrase)]) == phrase:
                del words[: len(phrase)]
        for phrase in TAILS:
            if len(words) > len(phrase) and tuple(words[-len(phrase) :]) == phrase:
                del words[-len(phrase) :]
        changed = len(words) != before
    return tuple(words)


def special(words: Sequence[str]) -> Kind | None:
    """Again, back, keep going; None for anything else."""
    said = tuple(words)
    return next((kind for kind, table in SPECIAL.items() if said in table), None)


def check(words: Sequence[str]) -> None:
    """Raise GrammarError for a clause of a form that no world obeys."""
    text = " ".join(words)
    if any(w in ("not", "never", "without") for w in words) or words[0] == "no":
        raise GrammarError(
            f'"{text}" says what not to do; say what to do instead, nothing is turned into '
            "its opposite"
        )
    if "instead" in words or ("rather" in words and "than" in words):
        raise GrammarError(f'"{text}" names what not to do as well; say only what to do')
    if words[0] in QUESTIONS:
        raise GrammarError(f'"{text}" is a question; a world only obeys')
    if found := [w for w in words if w in CONDITIONS]:
        raise GrammarError(
            f'"{text}" has a condition ("{found[0]}"); a world cannot wait for one: say for how '
            'long, e.g. "for 3 seconds"'
        )
    if "or" in words:
        raise GrammarError(f'"{text}" leaves a choice; say one of the two')


def steps_as_verb(words: Sequence[str], rest: Sequence[str]) -> tuple[str, ...]:
    """ "take two steps back", "three steps left", "make a turn to the left": as verbs.

    Args:
        words: the clause; rest: without its amount.
    """
    for noun, verb in (("step", "step"), ("turn", "turn")):
        said = [w for w in words if w in (noun, noun + "s") and w not in rest]
        if said and rest and rest[0] in ("take", "make", "do"):
            return (verb, *rest[1:])
        if said and rest and rest[0] != words[0]:
            return (verb, *rest)
    return tuple(rest)


def amount(words: Sequence[str]) -> tuple[tuple[str, ...], Amount]:
    """A clause without its count and duration, and these.

    Raises:
        GrammarError: a measure that no world keeps, or an amount that cannot be.
    """
    rest = list(words)
    times, length, unit, endless, given = 1, None, "chunks", False, False
    for phrase in ENDLESS:
        if (at := _find(rest, phrase)) is not None:
            del rest[at : at + len(phrase)]
            endless = given = True
    i = 0
    while i < len(rest):
        read = _amount_at(rest, i)
        if read is None:
            i += 1
            continue
        end, what, value = read
        given = True
        if what == "times":
            times *= _whole(value, rest[i:end])
        elif length is not None and what == unit:
            length += value  # "a minute and 30 seconds"
        elif length is not None:
            raise GrammarError(f'"{" ".join(words)}" has two durations; say one')
        else:
            length, unit = value, what
        del rest[i:end]
    if endless and (length is not None or times != 1):
        raise GrammarError(f'"{" ".join(words)}" has an end and has none; say one of them')
    return tuple(rest), Amount(times, length, unit, endless, given)  # type: ignore[arg-type]


def _whole(value: float, words: Sequence[str]) -> int:
    if value != int(value) or value < 1:
        raise GrammarError(f'"{" ".join(words)}" is no number of times; it must be whole, from 1')
    return int(value)


def _amount_at(words: Sequence[str], start: int) -> tuple[int, str, float] | None:
    """The amount that begins at ``start``: (end, "times" or a unit, how many)."""
    if words[start] in OFTEN:
        return start + 1, "times", float(OFTEN[words[start]])
    if words[start] == "briefly":
        return start + 1, "seconds", 1.0
    i = start
    led = words[i] in ("for", "during")
    i += led
    while (
        led and i < len(words) and words[i] in ("about", "exactly", "another", "around", "roughly")
    ):
        i += 1
    for phrase, seconds in VAGUE.items():
        if tuple(words[i : i + len(phrase)]) == phrase and (led or i + len(phrase) == len(words)):
            if i == 0:
                break  # a clause that begins with it is about something else
            return i + len(phrase), "seconds", seconds
    if not led and words[start] in ("x", "times") and start + 1 < len(words):
        value = number(words[start + 1])
        if value is not None and words[start] == "x":
            return start + 2, "times", value
    read = _number_at(words, i)
    if read is None:
        return None
    end, value = read
    while end < len(words) and words[end] in ("more", "full", "whole"):
        end += 1
    word = words[end] if end < len(words) else ""
    if word in ("times", "time", "x"):
        return end + 1, "times", value
    if word in UNITS:
        unit, factor = UNITS[word]
        value *= factor
        end += 1
        # "one second and a half"
        if tuple(words[end : end + 3]) == ("and", "a", "half"):
            value, end = value + factor / 2, end + 3
        if value <= 0:
            raise GrammarError(f'"{" ".join(words[start:end])}" is no time; it must be more than 0')
        return end, unit, value
    if word in MEASURES:
        raise GrammarError(
            f'"{" ".join(words[start : end + 1])}" cannot be measured here; say how often or for '
            'how long, e.g. "twice" or "for 3 seconds"'
        )
    return None


def _number_at(words: Sequence[str], i: int) -> tuple[int, float] | None:
    if i >= len(words):
        return None
    for phrase, value in QUANTITIES.items():
        if tuple(words[i : i + len(phrase)]) == phrase:
            return i + len(phrase), value
    if words[i] in ("a", "an"):
        return i + 1, 1.0
    value_or_none = number(words[i])
    if value_or_none is None:
        return None
    value, i = value_or_none, i + 1
    while i < len(words) and not words[i][0].isdigit() and (more := number(words[i])) is not None:
        # "twenty five", "two hundred"
        value = value * more if more >= 100 else value + more
        i += 1
    if tuple(words[i : i + 3]) == ("and", "a", "half"):
        return i + 3, value + 0.5
    return i, value


def _find(words: Sequence[str], phrase: Sequence[str]) -> int | None:
    for i in range(len(words) - len(phrase) + 1):
        if tuple(words[i : i + len(phrase)]) == tuple(phrase):
            return i
    return None
