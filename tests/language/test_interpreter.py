"""The grammar holds for any sentence, and the answers say what a person needs."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magi_world.language import CommandQueue, Interpreter, Step
from magi_world.language.reading import MAX_CHUNKS
from magi_world.model.static_text import StaticTextEncoder
from magi_world.world.spec import Command, WorldSpec
from tests.language.worlds import MOVES, OPPOSITES, SHIPPED_WORLDS, shipped
from tests.tiny import HashText

WORLD = shipped(SHIPPED_WORLDS[0])
SPEC = WORLD.spec
NOW = CommandQueue(rest=SPEC.default_command)
COUNTS = {1: "once", 2: "twice", 3: "three times", 4: "4 times", 7: "7x", 12: "twelve times"}
JOINTS = (", ", " then ", ", then ", "; ", ". ", " and then ", ", after that ", " -> ", ", next ")
MANNERS = ("", "please ", "could you ", "now ", "I want you to ", "ok, ")
_WORDS = (
    "turn left right walk forward twice 3 times for seconds then and stop not if until again back "
    "keep going dragon door , ; . 0 999999999 a the two half x x2 first or while say i"
)
WORDS = st.sampled_from(_WORDS.split())


@st.composite
def orders(draw: st.DrawFn) -> tuple[str, tuple[Step, ...]]:
    """A sentence of the documented grammar, and what it means."""
    text, steps = draw(st.sampled_from(MANNERS)), []
    count = draw(st.integers(1, 5))
    for i in range(count):
        command, last = draw(st.sampled_from(MOVES)), i == count - 1
        kind = draw(st.sampled_from(("none", "count", "seconds", "chunks", "both")))
        chunks: int | None
        if kind == "none":
            said, chunks = "", None if last else 1
        elif kind == "count":
            chunks = draw(st.sampled_from(sorted(COUNTS)))
            said = f" {COUNTS[chunks]}"
        else:
            n = draw(st.integers(1, 30))
            seconds = n / SPEC.chunk_seconds
            said = f" for {n} {'chunk' if kind == 'chunks' else 'second'}{'s' if n > 1 else ''}"
            chunks = n if kind == "chunks" else max(1, round(seconds))
            if kind == "both":
                said, chunks = f" twice{said}", max(1, round(2 * seconds))
        text += command + said + ("" if last else draw(st.sampled_from(JOINTS)))
        steps.append(Step(command, chunks))
    end = draw(st.sampled_from(("", ".", "!", " please", ", thank you")))
    return text + end, tuple(steps)


@given(orders(), st.sampled_from((str, str.upper, str.title)))
@settings(max_examples=150, deadline=None)
def test_every_sentence_of_the_grammar_means_what_it_says(order: tuple, write: type) -> None:
    text, steps = order
    reading = WORLD.read(write(text), NOW)
    assert reading.steps == steps, (write(text), reading.answer)
    assert reading.confidence == 1.0
    assert reading.command == steps[0].command


@given(st.lists(WORDS, max_size=30), st.sampled_from((None, *MOVES)))
@settings(max_examples=150, deadline=None)
def test_any_words_are_read_without_a_fault(words: list[str], now: str | None) -> None:
    queue = NOW if now is None else NOW.told(now)
    text = " ".join(words)
    reading = WORLD.read(text, queue)
    assert reading == WORLD.read(text, queue)
    assert 0 <= reading.confidence <= 1
    assert reading.answer
    assert reading.obeyed == (reading.command is not None)
    assert all(s.command in SPEC.command_names for s in reading.steps)
    assert all(s.chunks is not None and s.chunks <= MAX_CHUNKS for s in reading.steps[:-1])
    if reading.obeyed:
        assert reading.confidence >= WORLD.threshold
        # What was understood can be said again in the words of the answer's commands.
        plain = ", then ".join(
            s.command if s.chunks is None else f"{s.command} for {s.chunks} chunks"
            for s in reading.steps
        )
        assert WORLD.read(plain, queue).steps == reading.steps


@given(st.text(max_size=80))
@settings(max_examples=100, deadline=None)
def test_any_text_at_all_is_read(text: str) -> None:
    reading = WORLD.read(text, NOW)
    assert reading.text == text
    assert reading.answer


@given(st.sampled_from(SPEC.command_names), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_one_slip_in_a_long_word_is_forgiven(command: str, random: object) -> None:
    words = command.split()
    at = max(range(len(words)), key=lambda i: len(words[i]))
    word = words[at]
    i = random.randrange(1, len(word) - 2)  # type: ignore[attr-defined]
    words[at] = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    reading = WORLD.read(" ".join(words), NOW)
    if reading.obeyed:  # another word may have come out
        assert reading.command == command


@pytest.mark.parametrize("command", sorted(OPPOSITES))
def test_back_is_the_opposite_that_is_declared(command: str) -> None:
    reading = WORLD.read("the other way", NOW.told(command))
    assert reading.command == OPPOSITES[command]
    undone = WORLD.read(f"{command} for 3 seconds, then the other way", NOW)
    assert undone.steps[0].chunks == undone.steps[1].chunks


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("do not turn left", "says what not to do"),
        ("never turn left", "says what not to do"),
        ("if you are lost turn left", "has a condition"),
        ("turn left until the wall comes", "has a condition"),
        ("turn left or right", "leaves a choice"),
        ("turn left 90 degrees", "cannot be measured"),
        ("walk forward ten metres", "cannot be measured"),
        ("turn left zero times", "is no number of times"),
        ("turn left 2.5 times", "is no number of times"),
        ("turn left forever, then stop", "nothing can come after it"),
        ("turn left forever twice", "has an end and has none"),
        ("turn left for 3 seconds, for 2 chunks", "second duration"),
        ("walk forward for 99999 hours", "more than 100,000 chunks"),
        ("please", 'no command was said; say for example "turn left"'),
        ("   ", "nothing was said"),
        ("what is this place", "is a question"),
        ("the other way", "nothing was said before"),
    ],
)
def test_a_refusal_says_why(text: str, why: str) -> None:
    reading = WORLD.read(text, CommandQueue())
    assert not reading.obeyed
    assert reading.command is None
    assert why in reading.answer


def test_a_refusal_names_what_is_missing_and_what_there_is() -> None:
    reading = WORLD.read("turn left, then fight the monster", NOW)
    assert not reading.obeyed
    assert reading.answer.startswith('this world has no "fight"; it knows ')
    assert SPEC.command_names[0] in reading.answer or SPEC.things
    assert reading.confidence < WORLD.threshold


def test_a_world_says_what_it_knows_in_its_own_words() -> None:
    spec = WorldSpec(
        "w", (8, 8), 8, 16, SPEC.commands, things=("walls", "night"), description="full of trees"
    )
    world = Interpreter(spec, WORLD._encoder)
    assert world.read("show me a monster").answer.endswith("it knows walls, night")
    assert "no command about" in world.read("go to the tree").answer


def test_a_typo_costs_confidence() -> None:
    assert WORLD.read("turn left", NOW).confidence == 1.0
    reading = WORLD.read("turn lfet", NOW)
    assert (reading.command, reading.confidence) == ("turn left", 0.93)
    assert reading.answer == "turn left"
    swapped = WORLD.read("turn left adn stop", NOW)
    assert [step.command for step in swapped.steps] == ["turn left", "stand still"]


def test_what_goes_on_and_what_comes_again() -> None:
    queue = NOW.say(WORLD.read("turn left twice, then walk forward for 5 chunks", NOW))
    _, queue = queue.next()
    goes_on = WORLD.read("keep going", queue)
    assert goes_on.steps == (Step("turn left", 1), Step("walk forward", 5))
    again = WORLD.read("again", queue)
    assert again.steps == (Step("turn left", 2), Step("walk forward", 5))
    twice = WORLD.read("again, twice", queue)
    assert twice.steps == again.steps * 2
    assert WORLD.read("turn left, keep going", NOW).steps == (Step("turn left"),)
    refused = queue.say(WORLD.read("fly away", queue))
    assert refused is queue


def test_a_sentence_lasts_as_long_as_the_world_needs() -> None:
    slow = Command("go home", chunks=12)
    spec = WorldSpec("w", (8, 8), 24, 24, (slow, Command("wait here")))
    world = Interpreter(spec, HashText())
    assert world.read("go home, then wait here").steps == (Step("go home", 12), Step("wait here"))
    assert world.read("go home twice").steps == (Step("go home", 24),)
    assert world.read("go home for 3 seconds").steps == (Step("go home", 3),)


def test_the_threshold_is_the_worlds_own() -> None:
    text = "look over to the left"
    measured = WORLD.read(text, NOW)
    assert measured.obeyed
    assert measured.confidence < 1
    strict = WorldSpec("w", (8, 8), 8, 18, SPEC.commands, threshold=1.0)
    assert not Interpreter(strict, WORLD._encoder).read(text).obeyed


def test_a_world_without_commands_takes_every_text() -> None:
    world = Interpreter(WorldSpec("w", (8, 8), 8, 16), HashText())
    for text in ("a lighthouse at night", "turn left twice, then stop", "do not"):
        reading = world.read(text)
        assert (reading.command, reading.confidence, reading.steps) == (text, 1.0, (Step(text),))
    assert not world.read(" ").obeyed


def test_verbatim_is_not_matched() -> None:
    assert WORLD.verbatim("make it nihgt").steps == (Step("make it nihgt"),)


def test_it_can_be_pickled() -> None:
    twin = pickle.loads(pickle.dumps(Interpreter(SPEC, HashText())))
    assert twin.read("turn left twice").steps == (Step("turn left", 2),)


def test_the_encoder_tells_its_pieces() -> None:
    encoder = WORLD._encoder
    assert isinstance(encoder, StaticTextEncoder)
    assert encoder.pieces("turn left") == ["turn", "left"]
    assert encoder.pieces("") == []
