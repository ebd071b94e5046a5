"""YAML whose every value knows the line it stands on, so that a mistake can be pointed at: as nodes
(scripts), or as plain values beside a table of lines (`magi_world.io.records` builds from these).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from magi_world.config import require
from magi_world.io.records import Mistake, Mistakes, Place, Source, check_file, shown

MAX_DEPTH = 64
MAX_VALUES = 100_000  # a few aliases of aliases make billions


@dataclass(frozen=True, eq=False)
class Node:
    """A value of a YAML file; `name` is its key."""

    path: Path
    node: yaml.Node
    name: str = ""

    @property
    def line(self) -> int:
        """The line of the file, from 1."""
        return int(self.node.start_mark.line) + 1

    @property
    def where(self) -> str:
        return f"{self.path}, line {self.line}"

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.node, yaml.MappingNode)

    def is_text(self, text: str) -> bool:
        return isinstance(self.node, yaml.ScalarNode) and self.node.value == text

    def mapping(self, what: str, known: Sequence[str]) -> dict[str, Node]:
        """Its keys and values.
        Raises ValueError: no mapping, an unknown key, or one that occurs twice.
        """
        if not isinstance(self.node, yaml.MappingNode):
            raise ValueError(f"{self.where}: {what} must be keys and values, not {self._shown}")
        values: dict[str, Node] = {}
        for key, value in self.node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            where = f"{self.path}, line {key.start_mark.line + 1}"
            require(name in known, f"{where}: unknown key {name!r}; {what} has {', '.join(known)}")
            require(name not in values, f"{where}: {name!r} is there twice")
            values[name] = Node(self.path, value, name)
        return values

    def items(self) -> list[Node]:
        """The entries of a list. Raises ValueError: no list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise ValueError(f"{self.where}: {self.name} must be a list, not {self._shown}")
        return [Node(self.path, item, self.name) for item in self.node.value]

    def text(self) -> str:
        """Words on one line; `yes` and `5` are words too.
        Raises ValueError: a list, a mapping, or nothing.
        """
        value = self.node.value
        if not isinstance(self.node, yaml.ScalarNode) or not value.strip():
            raise ValueError(f"{self.where}: {self.name} must be a text, not {self._shown}")
        try:
            str(value).encode()
        except UnicodeEncodeError:
            right = "valid Unicode, without lone surrogates"
            raise ValueError(f"{self.where}: {self.name} must be {right}") from None
        return " ".join(str(value).split())

    def whole(self, least: int, also: str = "") -> int:
        """A whole number, not below ``least``.
        Raises ValueError: something else; ``also`` says what else would be right.
        """
        plain = isinstance(self.node, yaml.ScalarNode) and re.fullmatch(r"\d{1,12}", self._value)
        if not plain or int(self._value) < least:
            right = " ".join(filter(None, (f"a whole number from {least} on", also)))
            raise ValueError(f"{self.where}: {self.name} must be {right}, not {self._shown}")
        return int(self._value)

    def choice(self, *values: str) -> str:
        """One of a few words. Raises ValueError: another one."""
        if self._value not in values:
            raise ValueError(
                f"{self.where}: {self.name} must be {' or '.join(values)}, not {self._shown}"
            )
        return self._value

    def size(self) -> tuple[int, int]:
        """[height, width]. Raises ValueError: not two whole numbers."""
        items = self.items()
        require(len(items) == 2, f"{self.where}: {self.name} must be [height, width]")
        return items[0].whole(1), items[1].whole(1)

    @property
    def _value(self) -> str:
        return str(self.node.value) if isinstance(self.node, yaml.ScalarNode) else ""

    @property
    def _shown(self) -> str:
        if isinstance(self.node, yaml.ScalarNode):
            return repr(self.node.value)[:60] if self.node.value else "nothing"
        return "a list" if isinstance(self.node, yaml.SequenceNode) else "keys and values"


def read_nodes(path: Path) -> Node:
    """The root of a YAML file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not YAML, is empty, or uses anchors; with the line.
    """
    root = compose_yaml(path)
    if root is None:
        raise ValueError(f"{path} is empty")
    return Node(path, root)


def compose_yaml(path: Path, anchors: bool = False) -> yaml.Node | None:
    """The nodes of a YAML file, each with its line; None: the file says nothing.

    Args:
        anchors: allow values that refer to others.

    Raises:
        FileNotFoundError: there is no such file.
        Mistakes: no plain file, far too large or deep, not UTF-8, or not YAML.
    """
    try:
        if path.exists():
            check_file(path)
        text = path.read_text(encoding="utf-8")
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            line = event.start_mark.line + 1 if event.start_mark else 0
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise Mistakes(path, [Mistake(line, f"is nested deeper than {MAX_DEPTH}")])
            # A file that refers to itself would have no end.
            if not anchors and getattr(event, "anchor", None):
                raise Mistakes(path, [Mistake(line, "anchors and aliases are not supported")])
        return yaml.compose(text, yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise Mistakes(path, [Mistake(0, f"is not UTF-8 text: {error.reason}")]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        text = f"not valid YAML: {error.problem or error.context}"
        raise Mistakes(path, [Mistake(mark.line + 1 if mark else 0, text)]) from None
    except yaml.YAMLError as error:
        raise Mistakes(path, [Mistake(0, f"not valid YAML: {error}")]) from None


def read_yaml(path: Path) -> Source:
    """Read a YAML file whose root is a mapping.

    Raises:
        FileNotFoundError: there is no such file.
        Mistakes: as `compose_yaml`; it is no mapping, has too many values, or a key occurs twice.
    """
    node = compose_yaml(path, anchors=True)
    loader = yaml.SafeLoader("")
    try:
        values = {} if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        text = f"not valid YAML: {error.problem}"
        raise Mistakes(path, [Mistake(mark.line + 1 if mark else 0, text)]) from None
    if not isinstance(values, dict):
        raise Mistakes(path, [Mistake(1, f"must be keys and values, not {shown(values)}")])
    lines: dict[Place, int] = {(): 1}
    source = Source(str(path), values, lines)
    if node is not None:
        _walk(node, (), lines, source, frozenset())
    source.done()
    return source


def _walk(
    node: yaml.Node, place: Place, lines: dict[Place, int], source: Source, seen: frozenset[int]
) -> None:
    if id(node) in seen:  # an alias of something around it
        return
    seen = seen | {id(node)}
    line = node.start_mark.line + 1
    lines.setdefault(place, line)
    if len(lines) > MAX_VALUES:
        text = f"has more than {MAX_VALUES:,} values, with what its aliases repeat"
        raise Mistakes(Path(source.where), [Mistake(line, text)])
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            inner = (*place, str(key.value))
            lines[inner] = key.start_mark.line + 1
            if inner[-1] in names:
                source.is_wrong(inner, "is there twice")
            names.add(str(key.value))
            _walk(value, inner, lines, source, seen)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            _walk(value, (*place, i), lines, source, seen)
