"""Imports go one way: no circles, and no room knows a room above it.

Looks at the installed names and at imports inside functions too, not at those for types alone.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import magi_world

ROOMS = ("envs", "agents", "demos")  # each may import what stands before it, and the core
# Known, to be mended; nothing may be added.
KNOWN: tuple[set[str], ...] = ()


def modules(folder: Path, name: str) -> Iterator[tuple[str, Path]]:
    """Every module below a package, through links."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and (path / "__init__.py").is_file():
            yield from modules(path, f"{name}.{path.name}")
        elif path.suffix == ".py":
            yield (name if path.stem == "__init__" else f"{name}.{path.stem}"), path


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """What a module may import at run time."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from imported(other, package)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(parents if node.level else []), *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        yield from imported(node, package)


def graph(names: dict[str, Path]) -> dict[str, set[str]]:
    """Module -> modules of ours that it imports."""
    found: dict[str, set[str]] = {}
    for name, path in names.items():
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        wanted = imported(ast.parse(path.read_text("utf-8")), package)
        edges = {w if w in names else w.rpartition(".")[0] for w in wanted}
        found[name] = (edges & set(names)) - {name}
    return found


def circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """Groups of modules that reach each other."""

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        todo = list(edges[start])
        while todo:
            one = todo.pop()
            if one not in seen:
                seen.add(one)
                todo += edges[one]
        return seen

    reached = {name: reach(name) for name in edges}
    groups: list[set[str]] = []
    for name, others in reached.items():
        if name in others and not any(name in group for group in groups):
            groups.append({other for other in others if name in reached[other]})
    return groups


def height(name: str) -> int:
    """0 for the core, then the rooms above it."""
    parts = name.split(".")
    return ROOMS.index(parts[1]) + 1 if len(parts) > 1 and parts[1] in ROOMS else 0


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    folder = Path(magi_world.__path__[0])
    edges = graph(dict(modules(folder, "magi_world")))
    wrong = [
        f"circle: {', '.join(sorted(group))}"
        for group in circles(edges)
        if not any(group <= known for known in KNOWN)
    ]
    for name, others in edges.items():
        if not name.endswith("__main__"):  # the door, which opens into the uppermost room
            wrong += [f"upwards: {name} -> {o}" for o in others if height(o) > height(name)]
    print("\n".join(sorted(wrong)) or f"{len(edges)} modules, no circle")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
