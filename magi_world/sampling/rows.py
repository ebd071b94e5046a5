"""Indices that cost a GPU nothing: slices where rows lie side by side, else tensors kept on it.

A Python list as an index is copied to the device, and waited for, every time that it is used.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

INDICES_KEPT = 256


def upload(x: Tensor, device: torch.device) -> Tensor:
    """``x`` from the host to a device, without waiting for it."""
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    # Out of ordinary memory the copy would be waited for.
    return x.pin_memory().to(device, non_blocking=True)


def ranges_of(pairs: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """(R, 2) int32 on the device, half-open ranges as `attend_ranges` takes them."""
    return upload(torch.tensor(pairs, dtype=torch.int32), device)


def as_slice(rows: Sequence[int]) -> slice | None:
    """The slice that selects these rows, if there is one."""
    first = rows[0] if len(rows) else 0
    run = slice(first, first + len(rows))
    return run if list(rows) == list(range(run.start, run.stop)) else None


class Indices:
    """Lists of rows as indices; the tensors among them are uploaded once."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._kept: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()

    def __call__(self, rows: Sequence[int]) -> slice | Tensor:
        """What to index with, to get these rows in this order."""
        run = as_slice(rows)
        if run is not None:
            return run
        key = tuple(rows)
        if key not in self._kept:
            self._kept[key] = upload(torch.tensor(key), self.device)
            if len(self._kept) > INDICES_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def taken(x: Tensor, places: Sequence[int], axis: int) -> Tensor:
    """Some places of an axis, in this order: views of the runs among them, joined."""
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][1]:
            runs[-1][1] = place + 1
        else:
            runs.append([place, place + 1])
    views = [x.narrow(axis, start, end - start) for start, end in runs]
    return views[0] if len(views) == 1 else torch.cat(views, dim=axis)
