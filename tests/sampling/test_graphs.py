"""Recorded forwards: the same numbers, from memory that stays where it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from magi_world.engine import EngineConfig, prepare_parts
from magi_world.sampling import graphs
from magi_world.world.world import World
from tests.tiny import tiny_parts

KINDS = [
    {"window_size": 1},
    {"window_size": 2},
    {"window_size": 2, "passes": 3, "distilled": False},
]
COMMANDS = ["turn left", "turn left", "walk forward", "turn left", "walk forward", "turn right"]


class Outside(TorchDispatchMode):
    """Notes the memory that operations read or write and that none of them made."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, Tensor] = {}  # kept, so that no address is given away twice
        self.addresses: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves((args, kwargs)):
            if isinstance(x, Tensor) and (at := x.untyped_storage().data_ptr()) not in self.made:
                self.addresses.append(at)
        for x in tree_leaves(out):
            at = x.untyped_storage().data_ptr() if isinstance(x, Tensor) else 0
            if at and at not in self.addresses:
                self.made[at] = x
        return out


def world_of(kind: dict[str, Any], worlds: int, recorded: bool) -> World:
    engine = EngineConfig(graphs=recorded, clean_beside=True)
    world = World(prepare_parts(tiny_parts(**kind), engine), worlds)
    world.reset(seed=0)
    return world


@pytest.mark.parametrize("worlds", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_recorded_is_the_same_to_the_bit(kind: dict[str, Any], worlds: int) -> None:
    plain, recorded = (world_of(kind, worlds, r) for r in (False, True))
    for command in COMMANDS * 2:
        assert torch.equal(plain.step(command).latents, recorded.step(command).latents)
    assert recorded._stream.denoiser.graphs.known  # type: ignore[union-attr]
    assert plain._stream.denoiser.graphs is None
    # A snapshot takes the memory of the history; a world that goes on gets another one.
    before = recorded.snapshot()
    after = [recorded.step(command).latents for command in COMMANDS]
    recorded.restore(before)
    for command, expected in zip(COMMANDS, after, strict=True):
        assert torch.equal(plain.step(command).latents, expected)
        assert torch.equal(recorded.step(command).latents, expected)
    # Of one world the history is gone, so fewer keys are read.
    for world in (plain, recorded):
        world.reset(seed=9, worlds=[0])
    for command in COMMANDS:
        assert torch.equal(plain.step(command).latents, recorded.step(command).latents)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_replayed_reads_and_writes_where_it_did_when_recorded(
    kind: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    replays: list[list[list[int]]] = []

    def watched(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        runs: list[list[int]] = []
        replays.append(runs)

        def replay() -> Tensor:
            with Outside() as outside:
                out = work()
            runs.append(outside.addresses)
            return out

        return replay

    monkeypatch.setattr(graphs, "again", watched)
    world = world_of(kind, 3, recorded=True)
    for command in COMMANDS * 3:
        world.step(command)
    often = [runs for runs in replays if len(runs) > 2]
    assert often
    assert all(run == runs[0] for runs in often for run in runs)
