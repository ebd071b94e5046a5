"""JSON and YAML into dataclasses, read strictly: what is wrong is named, with its place, its value
and what is right; in YAML (`magi_world.io.marked_yaml`) with its line, and all of it at once.

Used for every file that may come from somebody else: nothing in it is believed, nothing is run.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

MAX_BYTES = 64 * 2**20  # a record is a few kilobytes; more is no record
T = TypeVar("T")
Place = tuple[str | int, ...]  # keys and indices from the root to a value
FAILED: Any = object()  # stands where a value could not be built


@dataclass(frozen=True)
class Right:
    """What a value must be beside its type: ``Annotated[int, Right(check, "a number from 1")]``."""

    holds: Callable[[Any], bool]
    says: str


@dataclass(frozen=True)
class Mistake:
    """What is wrong, and the line of the file it stands on; 0: on none."""

    line: int
    text: str


class Mistakes(ValueError):
    """Everything that is wrong with a file, in the order of its lines."""

    def __init__(self, path: Path, found: Sequence[Mistake]) -> None:
        self.path, self.found = path, sorted(set(found), key=lambda m: m.line)
        super().__init__("\n".join(self._told(mistake) for mistake in self.found))

    def _told(self, mistake: Mistake) -> str:
        where = f"{self.path}, line {mistake.line}" if mistake.line else str(self.path)
        return f"{where}: {mistake.text}"


@dataclass
class Source:
    """The values of a file, where each stands, and what was found wrong so far.

    where: the file, as messages begin.    lines: () is the root's; empty for JSON.
    """

    where: str
    values: Any
    lines: Mapping[Place, int] = field(default_factory=dict)
    found: list[Mistake] = field(default_factory=list)

    def line(self, place: Place) -> int:
        """The line of a value, or of the nearest one around it that the file has."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 0)

    def wrong(self, place: Place, text: str) -> None:
        """Something is wrong there; ``text`` says of itself with what."""
        self.found.append(Mistake(self.line(place), text))

    def is_wrong(self, place: Place, what: str) -> None:
        """The value there is wrong, and ``what`` goes on after its name."""
        self.wrong(place, f"{self.subject(place)} {what}")

    def subject(self, place: Place) -> str:
        """What a message begins with; where there are lines, they name the file."""
        name = self.name(place)
        if self.lines:
            return name or Path(self.where).name
        return ": ".join(filter(None, (self.where, name)))

    def name(self, place: Place) -> str:
        """How messages call a value; "" is the root."""
        parts = [f"[{key}]" if isinstance(key, int) else f".{key}" for key in place]
        return "".join(parts).lstrip(".")

    def done(self) -> None:
        """Raise what was found.

        Raises:
            Mistakes: there was something.
        """
        if self.found:
            raise Mistakes(Path(self.where), self.found)


def read_json(path: str | Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no plain file, far too large, not UTF-8, or no JSON object.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    check_file(path)
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
        raise ValueError(f"{where} is damaged: it must be a JSON object, not {shown(record)}")
    return record


def build(kind: type[T], record: Any, where: str, place: Place = ()) -> T:
    """A dataclass from a JSON object, every field of the type that it is declared with.

    Whole numbers pass for floats, lists for tuples; nothing else passes for anything.

    Raises:
        ValueError: a missing or unknown field, or a value of the wrong type; or what the
            dataclass itself refuses. ``where`` begins the message, and then comes the place.
    """
    made: T = value(kind, record, where, place)
    return made


def field_of(record: Mapping[str, Any], name: str, kind: Any, where: str) -> Any:
    """One field of a JSON object, of a type as annotations write it.

    Raises:
        ValueError: it is missing, or of another type.
    """
    if name not in record:
        raise ValueError(f"{where} lacks {name}")
    return value(kind, record[name], where, (name,))


def value(kind: Any, given: Any, where: str, place: Place = ()) -> Any:
    """``given`` as ``kind``, a type as annotations write it.

    Raises:
        ValueError: it is of another type.
    """
    source = Source(where, given)
    made = read(kind, given, place, source)
    if source.found:
        raise ValueError(source.found[0].text)
    return made


def read(kind: Any, given: Any, place: Place, source: Source) -> Any:
    """The value at a place as ``kind``, or FAILED where `Source.found` says why."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return given
    if origin is Annotated:
        return _right(inner[0], inner[1], given, place, source)
    if origin in (Union, types.UnionType):
        return _one_of(inner, given, place, source)
    if origin is Literal:
        if any(type(given) is type(choice) and given == choice for choice in inner):
            return given
        return _wrong(f"is {shown(given)}; it must be one of {inner}", place, source)
    if origin in (tuple, list):
        return _several(origin, inner, given, place, source)
    if isinstance(kind, type) and is_dataclass(kind):
        return _dataclass(kind, given, place, source)
    if kind is dict or (origin is not None and issubclass(origin, Mapping)):
        values = _mapping(given, place, source)
        if values is FAILED or not inner:
            return values
        made = {
            str(name): read(inner[1], one, (*place, str(name)), source)
            for name, one in values.items()
        }
        return FAILED if any(one is FAILED for one in made.values()) else made
    if kind is float and isinstance(given, int | float) and not isinstance(given, bool):
        try:
            number = float(given)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number if source.lines else given  # a record is written again as it was
    elif isinstance(kind, type) and type(given) is kind:
        return given
    return _wrong(f"is {shown(given)}; it must be {described(kind)}", place, source)


def merged(values: Any, defaults: Any) -> Any:
    """``values`` of a file, and where it lacks some, those of ``defaults``."""
    if not isinstance(defaults, Mapping):
        return values
    if values is None:
        return defaults  # a section whose every line was deleted
    if not isinstance(values, Mapping):
        return values
    filled = {name: merged(one, defaults.get(name)) for name, one in values.items()}
    return filled | {name: one for name, one in defaults.items() if name not in values}


def field_name(f: Any) -> str:
    """What a field is called in the file: "from" is no name that Python allows."""
    return str(f.metadata.get("yaml", f.name))


def described(kind: Any) -> str:
    """A type as messages write it."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return str(inner[1].says)
    if origin in (Union, types.UnionType):
        return " or ".join(described(one) for one in inner)
    if origin is Literal:
        return " or ".join(json.dumps(choice) for choice in inner)
    if origin in (tuple, list):
        return "a list"
    if isinstance(kind, type) and is_dataclass(kind):
        return "keys and values"
    return _NAMES.get(kind, str(kind))


_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    bool: "true or false",
    type(None): "null",
}


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _dataclass(kind: Any, given: Any, place: Place, source: Source) -> Any:
    values = _mapping(given, place, source)
    if values is FAILED:
        return FAILED
    known = {field_name(f): f for f in fields(kind)}
    unknown = [str(name) for name in values if name not in known]
    for name in unknown:
        near = difflib.get_close_matches(name, list(known), 1)
        right = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
        source.wrong((*place, name), f"{source.subject(place)} has no field {name!r}; {right}")
    needed = (
        name
        for name, f in known.items()
        if f.default is MISSING and f.default_factory is MISSING and name not in values
    )
    if lost := list(needed):
        source.is_wrong(place, f"lacks {', '.join(lost)}")
    made = {
        f.name: read(_hints(kind)[f.name], values[name], (*place, name), source)
        for name, f in known.items()
        if name in values
    }
    if lost or any(one is FAILED for one in made.values()):
        return FAILED
    try:
        whole = kind(**made)
        return FAILED if unknown else whole
    except (TypeError, ArithmeticError, ValueError) as error:
        # It may name the field, as in "Loop.steps is 0".
        named = re.match(r"\w+\.(\w+)", str(error))
        at = (*place, named[1]) if named else place
        alone = not place and source.lines
        source.wrong(at, str(error) if alone else f"{source.subject(place)}: {error}")
        return FAILED


def _mapping(given: Any, place: Place, source: Source) -> Any:
    if given is None and source.lines:
        return {}  # a section whose every line was deleted
    if isinstance(given, Mapping):
        return given
    return _wrong(f"is {shown(given)}; it must be keys and values", place, source)


def _right(kind: Any, right: Right, given: Any, place: Place, source: Source) -> Any:
    made = read(kind, given, place, Source(source.where, given, source.lines))
    if made is FAILED or not right.holds(made):
        return _wrong(f"is {shown(given)}; it must be {right.says}", place, source)
    return made


def _one_of(kinds: tuple[Any, ...], given: Any, place: Place, source: Source) -> Any:
    """The first kind that fits; else what is wrong with the only one, or the one of this shape."""
    some = [kind for kind in kinds if kind is not type(None)]
    refused: list[Mistake] = []
    for kind in kinds:
        trial = Source(source.where, given, source.lines)
        made = read(kind, given, place, trial)
        if made is not FAILED:
            return made
        if kind in some and (len(some) == 1 or _alike(kind, given)):
            refused = refused or trial.found
    if refused:
        source.found += refused
        return FAILED
    right = " or ".join(map(described, some))
    return _wrong(f"is {shown(given)}; it must be {right}", place, source)


def _alike(kind: Any, given: Any) -> bool:
    """Whether a value is a list where lists are asked for, or keys and values where these are."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _alike(get_args(kind)[0], given)
    if origin in (tuple, list):
        return isinstance(given, list | tuple)
    return isinstance(given, Mapping) and (isinstance(kind, type) and is_dataclass(kind))


def _several(origin: Any, inner: tuple[Any, ...], given: Any, place: Place, source: Source) -> Any:
    if not isinstance(given, list | tuple):
        return _wrong(f"is {shown(given)}; it must be a list", place, source)
    endless = origin is list or (len(inner) == 2 and inner[1] is Ellipsis)
    kinds = [inner[0] if inner else Any] * len(given) if endless else list(inner)
    if len(kinds) != len(given):
        return _wrong(f"has {len(given)} entries; it must have {len(kinds)}", place, source)
    pairs = zip(kinds, given, strict=True)
    made = [read(kind, one, (*place, i), source) for i, (kind, one) in enumerate(pairs)]
    return FAILED if any(one is FAILED for one in made) else origin(made)


def _wrong(what: str, place: Place, source: Source) -> Any:
    source.is_wrong(place, what)
    return FAILED


def check_file(path: Path) -> None:
    """Raise ValueError unless it can be a record: a plain file of some kilobytes."""
    if not path.is_file():
        raise ValueError(f"{path} is no plain file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; a record is far smaller")


def shown(given: Any) -> str:
    """A value as messages write it."""
    return f"{given!r:.60}"


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
