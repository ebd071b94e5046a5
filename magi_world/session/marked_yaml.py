"""YAML whose every value knows the line it stands on, so that a mistake can be pointed at."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from magi_world.config import require
from magi_world.io.records import compose_yaml


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
