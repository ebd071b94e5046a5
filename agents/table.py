"""Judged agents side by side, for people and for Markdown pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from magi_world.agents.judging import Episode, Figure, figures

# The spread of these is of no interest; their means are.
PLAIN = ("survived",)


def table_rows(agents: Mapping[str, Sequence[Episode]]) -> list[list[str]]:
    """Head and one row an agent: episodes, then mean ± standard error of each figure, with the
    standard deviation of the reward. A figure that an agent lacks is left empty."""
    known = {name: figures(episodes) for name, episodes in agents.items() if episodes}
    columns = list(dict.fromkeys(name for found in known.values() for name in found))
    head = ["agent", "episodes", "reward", "sd", *columns[1:]]
    rows = [head]
    for name, found in known.items():
        reward = found["reward"]
        spread = "" if reward.std is None else f"{reward.std:.2f}"
        cells = [_shown(column, found.get(column)) for column in columns[1:]]
        count = str(len(agents[name]))
        rows.append([name, count, _shown("reward", reward), spread, *cells])
    return rows


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """In columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """As a table of a page."""
    rule = ["---", *["--:"] * (len(rows[0]) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])


def _shown(name: str, figure: Figure | None) -> str:
    if figure is None:
        return ""
    if name in PLAIN:
        return f"{figure.mean:.0%}"
    mean = f"{figure.mean:.4f}" if abs(figure.mean) < 0.1 else f"{figure.mean:.2f}"
    if name.endswith("a decision") or figure.error is None:
        return mean
    return f"{figure.mean:.2f} ± {figure.error:.2f}"
