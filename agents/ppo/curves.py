"""Pictures of training: returns over steps, and the dream's word against the simulator's."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from magi_world.agents.ppo.progress import read_rows

SIZE, DOTS = (6.4, 4.0), 150
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Compared:
    """A checkpoint: mean return in the dream, and in the simulator.

    error: standard error of the simulator's mean; None for a single episode.
    """

    steps: int
    dream: float
    real: float
    error: float | None


def read_curve(run: str | Path, name: str = "return", window: int = 1) -> tuple[Any, Any]:
    """Steps (n,) and a column of a run's ``progress.csv`` (n,), averaged over ``window`` rows.

    Updates in which no episode ended are left out.

    Raises:
        ValueError: nothing to read.
    """
    rows = [row for row in read_rows(Path(run) / "progress.csv") if row.get(name)]
    if not rows:
        raise ValueError(f"{run} has no progress.csv with values of {name!r}")
    steps = np.array([int(row["steps"]) for row in rows])
    values = np.array([float(row[name]) for row in rows])
    means = [values[max(0, i + 1 - window) : i + 1].mean() for i in range(len(values))]
    return steps, np.array(means)


def compare_checkpoints(
    run: str | Path, real: str | Path, dream: str | Path | None = None, window: int = 4
) -> list[Compared]:
    """Checkpoints of a run that were judged, by their steps.

    Args:
        real: what `magi-world eval-agent -o FILE` wrote about them.
        dream: the same, played in the dream; None takes the returns of the training itself.
        window: updates before the checkpoint over which those are averaged.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no file of results, or has no checkpoint of this run.
    """
    judged = _judged(run, real)
    if dream is not None:
        dreamt = {steps: figure["mean"] for steps, figure in _judged(run, dream).items()}
    else:
        rows, returns = read_curve(run, window=window)
        ends = {steps: np.flatnonzero(rows <= steps) for steps in judged}
        dreamt = {steps: float(returns[known[-1]]) for steps, known in ends.items() if len(known)}
    return [
        Compared(steps, dreamt[steps], judged[steps]["mean"], judged[steps]["error"])
        for steps in sorted(judged.keys() & dreamt.keys())
    ]


def _judged(run: str | Path, results: str | Path) -> dict[int, dict[str, Any]]:
    """Steps of the run's checkpoints in a file of results -> mean and error of the reward."""
    found = json.loads(Path(results).read_text(encoding="utf-8"))
    if not isinstance(found, dict) or not isinstance(found.get("agents"), dict):
        raise ValueError(f"{results} is no file of results: it has no 'agents'")
    home, judged = (Path(run) / CHECKPOINTS).resolve(), {}
    for name, entry in found["agents"].items():
        place = Path(name.removeprefix("greedy:"))
        number = place.name.removeprefix("step_")
        if place.resolve().parent == home and number.isdigit():
            judged[int(number)] = entry["figures"]["reward"]
    if not judged:
        raise ValueError(f"{results} has no checkpoint of {run}; judge {run}/{CHECKPOINTS}/*")
    return judged


def correlation(pairs: Sequence[Compared]) -> float:
    """Pearson's, of dream and real returns; NaN for fewer than three, or where one is constant."""
    dream, real = (np.array([getattr(p, name) for p in pairs]) for name in ("dream", "real"))
    if len(pairs) < 3 or np.ptp(dream) == 0 or np.ptp(real) == 0:
        return math.nan
    return float(np.corrcoef(dream, real)[0, 1])


def draw_returns(
    runs: Mapping[str, str | Path], path: str | Path, name: str = "return", window: int = 4
) -> Path:
    """A PNG of a column of ``progress.csv`` over steps, one line a run; keys are their labels.

    Raises:
        ValueError: a run without values.
        ImportError: matplotlib is not installed.
    """
    figure, axes = _axes()
    for label, run in runs.items():
        steps, plain = read_curve(run, name)
        (line,) = axes.plot(steps, read_curve(run, name, window)[1], label=label)
        axes.plot(steps, plain, color=line.get_color(), alpha=0.25, linewidth=1)
    axes.set_xlabel("environment steps (chunks)")
    axes.set_ylabel(f"mean {name} of an episode")
    if len(runs) > 1:
        axes.legend()
    return _saved(figure, path)


def draw_comparison(pairs: Sequence[Compared], path: str | Path) -> Path:
    """A PNG of dream and real returns of checkpoints: over steps, and against each other.

    Raises:
        ValueError: no checkpoints.
        ImportError: matplotlib is not installed.
    """
    if not pairs:
        raise ValueError("pairs is empty; there is nothing to draw")
    figure, (left, right) = _axes(2)
    steps, dream, real = ([getattr(p, n) for p in pairs] for n in ("steps", "dream", "real"))
    errors = [pair.error or 0.0 for pair in pairs]
    left.plot(steps, dream, "o-", label="in the dream")
    left.errorbar(steps, real, errors, fmt="s-", capsize=3, label="in the simulator")
    left.set_xlabel("environment steps (chunks)")
    left.set_ylabel("mean return of an episode")
    left.legend()
    right.errorbar(dream, real, errors, fmt="o", capsize=3)
    for pair in pairs:
        right.annotate(f" {pair.steps}", (pair.dream, pair.real), fontsize=7)
    right.set_xlabel("return in the dream")
    right.set_ylabel("return in the simulator")
    r = correlation(pairs)
    right.set_title("" if math.isnan(r) else f"correlation {r:.2f}", fontsize=10)
    return _saved(figure, path)


def _axes(columns: int = 1) -> tuple[Any, Any]:
    try:
        # Not pyplot: that would choose a window system.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "drawing curves needs matplotlib; pip install 'magi-world[train]'"
        ) from error
    figure = Figure((SIZE[0] * (1 + 0.6 * (columns - 1)), SIZE[1]), layout="constrained")
    axes = figure.subplots(1, columns)
    for one in np.atleast_1d(axes):
        one.grid(alpha=0.3)
    return figure, axes


def _saved(figure: Any, path: str | Path) -> Path:
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    figure.savefig(temporary, dpi=DOTS, format="png")
    temporary.replace(path)
    return path
