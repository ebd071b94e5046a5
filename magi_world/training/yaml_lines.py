"""YAML into dataclasses: nothing is ignored; every mistake is told with its line, all at once."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

T = TypeVar("T")
Path_ = tuple[str, ...]  # keys from the root to a value
FAILED: Any = object()  # stands where a value could not be built


@dataclass(frozen=True)
class Mistake:
    """What is wrong, and the line of the file it stands on; 0: on none."""

    line: int
    text: str


class Mistakes(ValueError):
    """Everything that is wrong with a configuration, in the order of its lines."""

    def __init__(self, path: Path, found: Sequence[Mistake]) -> None:
        self.path, self.found = path, sorted(set(found), key=lambda m: m.line)
        super().__init__("\n".join(self._told(mistake) for mistake in self.found))

    def _told(self, mistake: Mistake) -> str:
        where = f"{self.path}, line {mistake.line}" if mistake.line else str(self.path)
        return f"{where}: {mistake.text}"


@dataclass
class Lines:
    """The values of a YAML file, where each stands, and what was found wrong so far."""

    path: Path
    values: Any
    lines: dict[Path_, int]
    found: list[Mistake] = field(default_factory=list)

    def line(self, path: Path_) -> int:
        """The line of a value, or of the nearest one around it that the file has."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)

    def wrong(self, path: Path_, text: str) -> None:
        self.found.append(Mistake(self.line(path), text))

    def done(self) -> None:
        """Raise what was found.

        Raises:
            Mistakes: there was something.
        """
        if self.found:
            raise Mistakes(self.path, self.found)


def read_lines(path: Path) -> Lines:
    """Read a YAML file whose root is a mapping.

    Raises:
        FileNotFoundError: there is no such file.
        Mistakes: it is not YAML, no mapping, or a key occurs twice.
    """
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        values = loader.construct_document(node) if node is not None else {}
    except UnicodeDecodeError as error:
        raise Mistakes(path, [Mistake(0, f"is not UTF-8 text: {error.reason}")]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        text = f"not valid YAML: {error.problem or error.context}"
        raise Mistakes(path, [Mistake(mark.line + 1 if mark else 0, text)]) from None
    except yaml.YAMLError as error:
        raise Mistakes(path, [Mistake(0, f"not valid YAML: {error}")]) from None
    out = Lines(path, values, {})
    if not isinstance(values, dict):
        raise Mistakes(path, [Mistake(1, f"must be keys and values, not {values!r:.60}")])
    if node is not None:
        _walk(node, (), out, set())
    out.done()
    return out


def _walk(node: yaml.Node, path: Path_, out: Lines, seen: set[int]) -> None:
    if id(node) in seen:  # an alias of something around it
        return
    seen = seen | {id(node)}
    out.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            line = key.start_mark.line + 1
            if name in names:
                out.found.append(Mistake(line, f"{'.'.join((*path, name))} is there twice"))
            names.add(name)
            out.lines[(*path, name)] = line
            _walk(value, (*path, name), out, seen)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            _walk(value, (*path, str(i)), out, seen)


def build(kind: type[T], source: Lines, defaults: Mapping[str, Any]) -> T:
    """A dataclass from the file; what it lacks is in ``defaults``, or its dataclass knows it.

    Returns:
        The dataclass, or FAILED where `Lines.found` says why.
    """
    return _build(kind, source.values, (), source, defaults)


def built_sections(kind: type[T], source: Lines, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Those fields of ``kind`` that can be built, by name; says nothing of the others."""
    hints = get_type_hints(kind)
    quiet = Lines(source.path, source.values, source.lines)
    out: dict[str, Any] = {}
    for f in fields(kind):  # type: ignore[arg-type]
        name = yaml_name(f)
        if name in source.values or name in defaults:
            value = source.values.get(name, defaults.get(name))
            made = _value(hints[f.name], value, (name,), quiet, defaults.get(name))
            if made is not FAILED:
                out[f.name] = made
        else:
            made_of = f.default_factory
            out[f.name] = f.default if made_of is MISSING else made_of()
    return out


def yaml_name(f: Any) -> str:
    """What a field is called in the file: "from" is no name that Python allows."""
    return str(f.metadata.get("yaml", f.name))


def _build(kind: type[T], values: Any, path: Path_, out: Lines, defaults: Any) -> T:
    where = ".".join(path) or out.path.name
    defaults = defaults if isinstance(defaults, Mapping) else {}
    if values is None:
        values = {}  # a section whose every line was deleted
    if not isinstance(values, Mapping):
        out.wrong(path, f"{where} must be keys and values, not {values!r:.60}")
        return FAILED
    known = {yaml_name(f): f for f in fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            near = _nearest(str(name), list(known))
            out.wrong((*path, str(name)), f"{where} has no field {name!r}; {near}")
    hints = get_type_hints(kind)
    given: dict[str, Any] = {}
    for name, f in known.items():
        needed = f.default is MISSING and f.default_factory is MISSING
        if name in values:
            value = values[name]
        elif name in defaults:
            value = defaults[name]
        elif needed:
            out.wrong(path, f"{where} lacks the field {name!r}")
            given[f.name] = FAILED
            continue
        else:
            continue
        inner = defaults.get(name)
        given[f.name] = _value(hints[f.name], value, (*path, name), out, inner)
    if any(value is FAILED for value in given.values()):
        return FAILED
    try:
        made = kind(**given)
        return FAILED if set(values) - set(known) else made
    except ValueError as error:
        out.wrong(_field_of(str(error), path, known), f"{where}: {error}" if path else str(error))
        return FAILED


def _field_of(message: str, path: Path_, known: Mapping[str, Any]) -> Path_:
    """The path of the field that a dataclass's message begins with, such as "Loop.steps is 0"."""
    named = re.match(r"\w+\.(\w+)", message)
    return (*path, named[1]) if named and named[1] in known else path


def _nearest(name: str, known: Sequence[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"it has {', '.join(sorted(known))}"


def _value(hint: Any, value: Any, path: Path_, out: Lines, defaults: Any = None) -> Any:
    where, origin = ".".join(path), get_origin(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        return _build(hint, value, path, out, defaults)
    if origin in (Union, types.UnionType):
        return _union(get_args(hint), value, path, out, defaults)
    if origin is Literal:
        if value not in get_args(hint):
            out.wrong(path, f"{where} is {value!r:.60}; it must be one of {get_args(hint)}")
            return FAILED
        return value
    if origin is tuple:
        return _tuple(get_args(hint), value, path, out)
    if origin is not None and issubclass(origin, Mapping):
        inner = get_args(hint)[1]
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            out.wrong(path, f"{where} must be keys and values, not {value!r:.60}")
            return FAILED
        known = defaults if isinstance(defaults, Mapping) else {}
        made = {
            str(k): _value(inner, v, (*path, str(k)), out, known.get(str(k)))
            for k, v in value.items()
        }
        return FAILED if any(v is FAILED for v in made.values()) else made
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (int, float, str, bool) and type(value) is not hint:
        out.wrong(path, f"{where} is {value!r:.60}; it must be of type {hint.__name__}")
        return FAILED
    return value


def _union(kinds: tuple[Any, ...], value: Any, path: Path_, out: Lines, defaults: Any) -> Any:
    if value is None and type(None) in kinds:
        return None
    # A plain text is one only where a text may stand; anything else is the other kind.
    if isinstance(value, str) and str in kinds:
        return value
    first = next(k for k in kinds if k not in (type(None), str))
    return _value(first, value, path, out, defaults)


def _tuple(kinds: tuple[Any, ...], value: Any, path: Path_, out: Lines) -> Any:
    where = ".".join(path)
    if not isinstance(value, list | tuple):
        out.wrong(path, f"{where} must be a list, not {value!r:.60}")
        return FAILED
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        out.wrong(path, f"{where} is {value!r:.60}; it must have {len(kinds)} entries")
        return FAILED
    made = tuple(
        _value(k, v, (*path, str(i)), out)
        for i, (k, v) in enumerate(zip(kinds, value, strict=True))
    )
    return FAILED if any(v is FAILED for v in made) else made
