"""The schedule's tables: times, intervals, and which chunks are in flight at each stage."""

from __future__ import annotations

import torch
from torch import Tensor

from magi_world.sampling.schedule import intervals, time_grid
from magi_world.sampling.stream import DenoisingWindow
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
    flight, rows = DenoisingWindow(first=offset), []
    while flight.end < chunks or flight.count:
        flight = flight.admit() if flight.end < chunks else flight
        stages = flight.stages()
        rows.append([flight.first, flight.end, min(stages), max(stages) + 1])
        flight, _ = flight.advance(window)
    return [list(column) for column in zip(*rows, strict=True)]
