"""JSON records, read strictly: what is wrong is named, with its place, its value and what is right.

Used for every file that may come from somebody else: nothing in it is believed, nothing is run.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

MAX_BYTES = 64 * 2**20  # a record is a few kilobytes; more is no record
T = TypeVar("T")


def read_json(path: str | Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no plain file, far too large, not UTF-8, or no JSON object.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    if not path.is_file():
        raise ValueError(f"{path} is no plain file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; a record is far smaller")
    return parse_json(path.read_bytes(), str(path))


def parse_json(text: str | bytes, where: str) -> dict[str, Any]:
    """A JSON object; NaN and infinity, which JSON does not know, are refused.

    Raises:
        ValueError: anything else; ``where`` begins the message.
    """
    try:
        record = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is damaged: {str(error) or type(error).__name__}") from None
    if not isinstance(record, dict):
        raise ValueError(f"{where} is damaged: it must be a JSON object, not {_shown(record)}")
    return record


def build(kind: type[T], record: Any, where: str) -> T:
    """A dataclass from a JSON object, every field of the type that it is declared with.

    Whole numbers pass for floats, lists for tuples; nothing else passes for anything.

    Raises:
        ValueError: a missing or unknown field, or a value of the wrong type; or what the
            dataclass itself refuses. ``where`` begins the message.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"{where} is {_shown(record)}; it must be a JSON object")
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(str(name) for name in set(record) - set(known)):
        raise ValueError(f"{where} has unknown fields {unknown}; it has {', '.join(known)}")
    needed = (
        name
        for name, f in known.items()
        if f.default is MISSING and f.default_factory is MISSING and name not in record
    )
    if lost := list(needed):
        raise ValueError(f"{where} lacks {', '.join(lost)}")
    hints = get_type_hints(kind)
    values = {name: value(hints[name], record[name], f"{where}: {name}") for name in record}
    try:
        return kind(**values)
    except (TypeError, ArithmeticError) as error:
        raise ValueError(f"{where}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def field(record: Mapping[str, Any], name: str, kind: Any, where: str) -> Any:
    """One field of a JSON object, of a type as annotations write it.

    Raises:
        ValueError: it is missing, or of another type.
    """
    if name not in record:
        raise ValueError(f"{where} lacks {name}")
    return value(kind, record[name], f"{where}: {name}")


def value(kind: Any, given: Any, where: str) -> Any:
    """``given`` as ``kind``, a type as annotations write it.

    Raises:
        ValueError: it is of another type.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return given
    if origin in (Union, types.UnionType):
        return _one_of(inner, given, where, kind)
    if origin is Literal:
        if any(type(given) is type(choice) and given == choice for choice in inner):
            return given
        raise ValueError(f"{where} is {_shown(given)}; it must be one of {inner}")
    if origin in (tuple, list):
        return _several(origin, inner, given, where)
    if origin in (dict, Mapping) or kind is dict:
        if not isinstance(given, dict):
            raise ValueError(f"{where} is {_shown(given)}; it must be a JSON object")
        of = inner[1] if inner else Any
        return {name: value(of, one, f"{where}.{name}") for name, one in given.items()}
    if kind is float and isinstance(given, int | float) and not isinstance(given, bool):
        try:
            number = float(given)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return given
    elif isinstance(kind, type) and is_dataclass(kind):
        return build(kind, given, where)
    elif isinstance(kind, type) and type(given) is kind:
        return given
    raise ValueError(f"{where} is {_shown(given)}; it must be {_NAMES.get(kind, str(kind))}")


_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    bool: "true or false",
    type(None): "null",
}


def _one_of(inner: tuple[Any, ...], given: Any, where: str, kind: Any) -> Any:
    first: ValueError | None = None
    for one in inner:
        try:
            return value(one, given, where)
        except ValueError as error:
            if first is None and one is not type(None):
                first = error
    assert first is not None, f"{kind} allows nothing but null"
    raise first


def _several(origin: Any, inner: tuple[Any, ...], given: Any, where: str) -> Any:
    if not isinstance(given, list | tuple):
        raise ValueError(f"{where} is {_shown(given)}; it must be a list")
    endless = origin is list or (len(inner) == 2 and inner[1] is Ellipsis)
    kinds = [inner[0] if inner else Any] * len(given) if endless else list(inner)
    if len(kinds) != len(given):
        raise ValueError(f"{where} has {len(given)} entries; it must have {len(kinds)}")
    pairs = zip(kinds, given, strict=True)
    return origin(value(k, one, f"{where}[{i}]") for i, (k, one) in enumerate(pairs))


def _shown(given: Any) -> str:
    return f"{given!r:.60}"


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
