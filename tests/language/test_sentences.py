"""Two hundred sentences a world: 95 of 100 right, and nothing obeyed that is not known."""

from __future__ import annotations

import pytest

from magi_world.language.calibration import foreign
from tests.language.judge import FILE, mistakes, sentences
from tests.language.worlds import SHIPPED_WORLDS, interpreters


@pytest.mark.parametrize("name", [*SHIPPED_WORLDS, "goals"])
def test_sentences_are_read_right(name: str) -> None:
    wrong, obeyed, known, unknown = mistakes(interpreters()[name])
    assert known >= 100
    assert known + unknown >= 200
    assert not obeyed
    assert len(wrong) <= 0.05 * known, "\n".join(wrong)


def test_the_sentences_are_not_those_of_the_calibration() -> None:
    interpreter = interpreters()[SHIPPED_WORLDS[0]]
    used = {" ".join(words) for words in foreign(interpreter._matcher)}
    assert not used & {s.say.lower() for s in sentences(interpreter.spec)}
    assert FILE.is_file()


@pytest.mark.parametrize("name", [*SHIPPED_WORLDS, "goals"])
def test_confidence_is_calibrated(name: str) -> None:
    """Of what is said in held-out words, as much is obeyed as the confidence promises, or more."""
    interpreter = interpreters()[name]
    said = [(p, c.name) for c in interpreter.spec.commands for p in c.held_out]
    readings = [(interpreter.read(p), name) for p, name in said]
    obeyed = [(r, name) for r, name in readings if r.obeyed]
    right = sum(r.command == name for r, name in obeyed)
    assert len(obeyed) >= 0.75 * len(readings)
    promised = sum(r.confidence for r, _ in obeyed)
    assert right >= 0.95 * promised
    assert right >= 0.95 * len(obeyed)
