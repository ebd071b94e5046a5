"""The text line, and keys as commands."""

from __future__ import annotations

import pytest

from magi_world.demos.steering import KeyMap, Steering
from magi_world.demos.window.widgets import TextLine
from magi_world.world.spec import Command

WORDS = ("turn left", "turn right", "walk forward", "walk backward", "open the left door")


def line(text: str = "") -> TextLine:
    made = TextLine(lambda: WORDS)
    made.start(text)
    return made


def test_editing() -> None:
    made = line("turn lft")
    made.move(-2)
    made.insert("e")
    assert (made.text, made.cursor) == ("turn left", 7)
    made.delete()
    made.backspace()
    assert made.text == "turn lt"
    made.move(100)
    made.backspace(word=True)
    assert made.text == "turn "
    made.insert("a\nb\tc")
    assert made.text == "turn a b c"
    made.move(-100)
    made.backspace()
    assert made.cursor == 0


def test_a_line_that_is_sent_loses_stray_blanks_and_goes_to_the_history_once() -> None:
    made = line("  turn   left ")
    assert made.submit() == "turn left"
    assert not made.open
    for text in ("walk forward", "turn left", ""):
        made.start(text)
        made.submit()
    assert made.history == ["walk forward", "turn left"]


def test_history_goes_up_and_down_and_keeps_the_draft() -> None:
    made = line()
    for text in ("one", "two"):
        made.start(text)
        made.submit()
    made.start("dra")
    made.older()
    assert made.text == "two"
    made.older()
    made.older()
    assert made.text == "one"
    made.newer()
    made.newer()
    made.newer()
    assert made.text == "dra"


def test_completion_begins_with_what_fits_best_and_goes_round() -> None:
    made = line("LEFT")
    made.complete()
    assert made.text == "turn left"
    made.complete()
    assert made.text == "open the left door"
    made.complete()
    assert made.text == "turn left"
    made = line("turn r")
    assert made.hint == "ight"
    made.complete()
    assert made.text == "turn right"
    assert line("nothing like it").completions() == []
    assert line("").hint == ""


def test_the_hint_can_be_taken() -> None:
    made = line("walk b")
    made.accept()
    assert made.text == "walk backward"


def keymap(*keys: tuple[str, str]) -> KeyMap:
    return KeyMap([Command(name, keys=tuple(k.split())) for name, k in keys])


ARENA = (
    ("turn left", "left"),
    ("turn right", "right"),
    ("walk forward", "up"),
    ("walk forward while turning left", "up+left"),
    ("strafe left", "q"),
)


@pytest.mark.parametrize(
    ("held", "command"),
    [
        ("left", "turn left"),
        ("a", "turn left"),
        ("up left", "walk forward while turning left"),
        ("w a", "walk forward while turning left"),
        ("left right", "turn right"),
        ("right left", "turn left"),
        ("q", "strafe left"),
        ("x", None),
        ("down", None),
    ],
)
def test_held_keys_mean_the_largest_chord_then_the_latest_key(
    held: str, command: str | None
) -> None:
    assert keymap(*ARENA).command(held.split()) == command


def test_a_world_keeps_the_letters_that_it_binds() -> None:
    made = keymap(("turn left", "left"), ("attack", "a"), ("same again", "left"))
    assert made.command(["a"]) == "attack"
    assert made.command(["left"]) == "turn left"
    assert "d" not in made.keys
    assert made.keys_of("turn left") == ("left",)


@pytest.mark.parametrize("held", ["w a", "up left", "w left", "a up"])
def test_letters_and_arrows_that_mean_the_same_make_the_same_chords(held: str) -> None:
    made = keymap(("turn left", "a left"), ("walk forward", "w up"), ("curve left", "w+a"))
    assert made.command(held.split()) == "curve left"


def test_a_world_without_a_default_goes_on_with_the_last_key() -> None:
    steering = Steering(keymap(*ARENA), None)
    assert steering.command is None
    steering.press("up")
    steering.release("up")
    assert steering.take() == "walk forward"
    assert steering.take() == "walk forward"
    steering.say(None)
    assert steering.take() is None


def test_losing_the_keyboard_lets_all_keys_go() -> None:
    steering = Steering(keymap(*ARENA), "stand still")
    steering.press("up")
    steering.take()
    steering.release()
    assert steering.take() == "stand still"
