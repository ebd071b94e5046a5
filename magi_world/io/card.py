"""A page about a world, from nothing but its world.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def world_card(record: Mapping[str, Any], on_hub: str | None = None) -> str:
    """Markdown: what the world is, what it obeys, how good it is and where it comes from.

    Args:
        record: of `magi_world.io.package.read_record`.
        on_hub: "owner/name"; with the fields that the hub reads in front.
    """
    name = str(record["name"])
    height, width = record["frame_size"]
    address = f"hf:{on_hub}" if on_hub else name
    commands = record.get("commands", [])
    first = commands[0]["name"] if commands else "the scene continues"
    lines = [f"# {name}", "", str(record.get("description", "")).strip(), ""]
    lines += [
        f"{height}x{width} pixels, {record['fps']} frames a second, "
        f"{_frames(record)} frames a chunk, {len(commands)} commands.",
        "",
        "```python",
        "import magi_world",
        "",
        f'world = magi_world.load_world("{address}")',
        "world.reset(seed=0)",
        f"chunk = world.step({first!r})",
        "```",
        "",
        "## Commands",
        "",
        "| command | keys | other words for it |",
        "|---|---|---|",
    ]
    for command in commands:
        keys = ", ".join(command.get("keys", ()))
        lines.append(
            f"| {command['name']} | {keys} | {', '.join(command.get('phrases', ())[:4])} |"
        )
    sections = {"Quality": record.get("quality"), "Origin": record.get("provenance")}
    for title, values in sections.items():
        if values:
            lines += [
                "",
                f"## {title}",
                "",
                "| | |",
                "|---|--:|" if title == "Quality" else "|---|---|",
            ]
            lines += [f"| {key} | {value} |" for key, value in _flat(values)]
    lines += ["", "## Licence", "", str(record.get("licence", "")) or "Not stated.", ""]
    if on_hub is None:
        return "\n".join(lines)
    head = ["---", "library_name: magi-world", "pipeline_tag: text-to-video", "tags:"]
    return "\n".join([*head, "- world-model", "- magi-world", "---", "", *lines])


def _frames(record: Mapping[str, Any]) -> int:
    patch = record["vae"].get("patch_length", 4)
    return int(record["sampler"]["chunk_width"]) * int(patch)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested figures as rows of (path, value); lists of numbers are left out."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        label = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            rows += _flat(value, f"{label}: ")
        elif isinstance(value, float):
            rows.append((label, f"{value:.4g}"))
        elif isinstance(value, str | int | bool):
            rows.append((label, str(value)))
    return rows
