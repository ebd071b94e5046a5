"""The schedule's tables: times, intervals, and which chunks are in state at each stage."""

from __future__ import annotations

import torch
from torch import Tensor

from magi_world.sampling.denoise import DenoisingWindow
from magi_world.sampling.schedule import intervals, time_grid
from tests.reference.compare import relative_error


def check_tables(case: dict, tensors: dict[str, Tensor]) -> dict[str, float]:
    """Relative error of each table; sequences must be equal."""
    errors = {}
    for name, want in tensors.items():
        kind, steps, mode = name.split(".")
        if kind == "t":
            got = time_grid(int(steps), mode)
        elif kind == "interval":
            got = torch.tensor(intervals(int(steps), mode), dtype=torch.float32)
        else:
            raise AssertionError(f"unknown table {name}")
        errors[name] = relative_error(got, want)
    for name, want_rows in case["sequences_chunks_window_offset"].items():
        got_rows = sequence(*map(int, name.split(",")))
        if got_rows != want_rows:
            raise AssertionError(f"sequence {name}: {got_rows}, expected {want_rows}")
        errors[f"sequence {name}"] = 0.0
    return errors


def sequence(chunks: int, window: int, offset: int) -> list[list[int]]:
    """First chunk, end chunk, lowest stage and end stage of every stage of a drained stream."""
    state, rows = DenoisingWindow(first=offset), []
    while state.end < chunks or state.count:
        state = state.admit() if state.end < chunks else state
        stages = state.stages()
        rows.append([state.first, state.end, min(stages), max(stages) + 1])
        state, _ = state.advance(window)
    return [list(column) for column in zip(*rows, strict=True)]
