"""JSON records: types are kept, and what is wrong is named."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from magi_world.io.marked_yaml import read_yaml
from magi_world.io.records import Mistakes, build, parse_json, read_json


@dataclass(frozen=True)
class Inner:
    weight: float = 1.0


@dataclass(frozen=True)
class Outer:
    name: str
    count: int
    sizes: tuple[int, int] = (1, 2)
    parts: tuple[Inner, ...] = ()
    mode: Literal["a", "b"] = "a"
    maybe: str | None = None
    free: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError(f"Outer.count is {self.count}; it must be at least 0")


def test_a_record_becomes_a_dataclass() -> None:
    record = {"name": "x", "count": 2, "sizes": [3, 4], "parts": [{"weight": 2}], "maybe": None}
    assert build(Outer, record, "f") == Outer("x", 2, (3, 4), (Inner(2.0),), "a", None)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"count": "2"}, "f: count is '2'; it must be a whole number"),
        ({"count": True}, "f: count is True; it must be a whole number"),
        ({"count": 2.0}, "f: count is 2.0; it must be a whole number"),
        ({"count": -1}, "f: Outer.count is -1"),
        ({"name": None}, "f: name is None; it must be a text"),
        ({"sizes": [1, 2, 3]}, "f: sizes has 3 entries; it must have 2"),
        ({"sizes": "12"}, "f: sizes is '12'; it must be a list"),
        ({"sizes": [1, "2"]}, r"f: sizes\[1\] is '2'"),
        ({"parts": [{"weight": "heavy"}]}, r"f: parts\[0\].weight is 'heavy'; .* finite number"),
        ({"parts": [{"weight": math.inf}]}, "weight is inf"),
        ({"parts": [{"weight": 10**400}]}, "weight is 1000"),
        ({"parts": [{"wait": 1}]}, r"parts\[0\] has no field 'wait'; did you mean 'weight'"),
        ({"mode": "c"}, "mode is 'c'; it must be one of"),
        ({"maybe": 3}, "maybe is 3; it must be a text"),
        ({"free": []}, r"free is \[\]; it must be keys and values"),
        ({"colour": "red"}, "f has no field 'colour'; it has name, count"),
    ],
)
def test_what_is_wrong_is_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(Outer, {"name": "x", "count": 2, **changed}, "f")


def test_missing_fields_are_named() -> None:
    with pytest.raises(ValueError, match="f lacks name, count"):
        build(Outer, {}, "f")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f is damaged"),
        ("[1]", "must be a JSON object"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": 1', "f is damaged"),
        ("[" * 100_000, "RecursionError|recursion"),
        (b"\xff\xfe", "f is damaged"),
        ('{"a": ' + "9" * 5000 + "}", "f is damaged"),
    ],
)
def test_texts_that_are_no_record(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text, "f")


def test_files_that_are_no_record(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.json"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match="no plain file"):
        read_json(tmp_path)


def test_aliases_are_followed_but_not_without_end(tmp_path: Path) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text("base: &b {x: 1}\nother: *b\n")
    assert read_yaml(path).values == {"base": {"x": 1}, "other": {"x": 1}}
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{n}: &{n} [{', '.join([f'*{m}'] * 9)}]" for m, n in zip("abcdef", "bcdefg", strict=True)
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(Mistakes, match="more than 100,000 values"):
        read_yaml(path)
