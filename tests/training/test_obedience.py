"""Figures of obedience, on worlds whose obedience is known, and the courtyard's own figures."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from toy import COMMANDS, record_config

from magi_world.training import judge
from magi_world.training.data import ChunkDataset
from magi_world.training.rollout import EvaluateConfig, filled, history_of
from magi_world.training.simulators import courtyard_figures
from magi_world.training.simulators.courtyard_figures import (
    ORDER,
    circles,
    in_order,
    masks,
    middle_wall,
    size_and_place,
)
from magi_world.training.simulators.courtyard_map import PILLARS, WALLS
from magi_world.world.world import World


class KnowingWorld:
    """Dreams what really came, if it is told what was really held; else something darker."""

    num_worlds = 4

    def __init__(self, data: ChunkDataset, deaf: bool = False, goes_on: bool = False) -> None:
        self.data, self.deaf, self.goes_on, self.steps = data, deaf, goes_on, 0
        self.spec = SimpleNamespace(
            command_names=COMMANDS, default_command=COMMANDS[0], chunk_seconds=1 / 3
        )

    def snapshot(self) -> None: ...
    def restore(self, state: None) -> None:
        self.steps = 0

    def step(self, said: str) -> Any:
        rows = filled(self.rows, self.num_worlds) + history_of(self.data) + self.steps
        self.steps += self.goes_on
        real = self.data.pixels(rows)
        told = self.data.command[rows] == COMMANDS.index(said)
        dark = ~told[:, None, None, None, None] & (not self.deaf)
        return SimpleNamespace(decoded=torch.where(dark, real // 2, real))


@pytest.fixture(autouse=True)
def _begins(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(world: Any, data: ChunkDataset, rows: torch.Tensor, seed: int) -> None:
        world.rows, world.steps = rows, 0

    monkeypatch.setattr(judge, "begin", begin)
    monkeypatch.setattr(courtyard_figures, "begin", begin)


def test_the_true_command_must_be_strictly_nearest(
    train_data: ChunkDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "OTHERS", 2)
    config = EvaluateConfig(choices=5)
    assert set(judge.choices(KnowingWorld(train_data), train_data, config).values()) == {1.0}
    deaf = judge.choices(KnowingWorld(train_data, deaf=True), train_data, config)
    assert set(deaf.values()) == {0.0}
    longer = EvaluateConfig(choices=2, held=2)
    rows = judge.clips_of(train_data, 0, 2, 0, held=2)
    behind = rows[:, None] + history_of(train_data) + torch.arange(2)
    assert (train_data.command[behind] == 0).all()
    world = KnowingWorld(train_data, goes_on=True)
    assert set(judge.choices(world, train_data, longer).values()) == {1.0}
    told = judge.obedience(KnowingWorld(train_data), train_data, record_config(), config)
    assert told["choice_moves"] == told["choice_all"] == 1
    assert "scenes" not in told


def test_brightness_is_held_against_the_real_one(train_data: ChunkDataset) -> None:
    config = EvaluateConfig(choices=2)
    record = record_config()
    found = judge.brightness(KnowingWorld(train_data), train_data, record, "go left", config)
    assert found["after_the_chunk"] == 1
    assert found["and_stays"] == 0  # under "stay" this world turns dark


def picture(colour: tuple[int, int, int], left: int, right: int) -> torch.Tensor:
    """A sky, a floor, and between them a thing of that colour from column left to right."""
    made = np.full((64, 64, 3), (160, 196, 236), np.uint8)
    made[40:] = (138, 106, 77)
    made[20:40, left:right] = colour
    return torch.from_numpy(made)[None]


@pytest.mark.parametrize("thing", [*WALLS, *PILLARS], ids=lambda t: t.name)
def test_things_are_told_by_colour(thing: Any) -> None:
    found = masks(picture(thing.colour, 32, 64))
    share, aside = size_and_place(picture(thing.colour, 32, 64), thing.name)
    assert float(share) == pytest.approx(20 * 32 / 64**2)
    assert float(aside) == pytest.approx(0.5, abs=0.02)
    assert [name for name, mask in found.items() if mask.any()] == [thing.name]


def test_walls_in_the_order_of_a_turn_to_the_left() -> None:
    shown = [middle_wall(picture(w.colour, 16, 48)).item() for w in WALLS]
    assert shown == [0, 3, 2, 1]  # clockwise from the north, which is to the right
    assert middle_wall(picture((128, 128, 128), 16, 48)).item() == -1
    assert in_order([2, 2, -1, 3, 0, 0, 1, 2])
    assert not in_order([0, 1, 2])
    assert not in_order([0, 2, 1, 3])
    assert not in_order([0, 1, 0, 1, 2, 3])


@pytest.mark.parametrize("frames", [1, 4, 8])
def test_a_circle_is_watched_whatever_a_chunk_is_long(
    frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    walls = {w.name: picture(w.colour, 0, 64)[0] for w in WALLS}

    class Turning:
        """Turns by 9 degrees a frame, 12 frames a second, or the wrong way."""

        num_worlds = 1
        spec = SimpleNamespace(chunk_seconds=frames / 12)

        def __init__(self, way: int) -> None:
            self.at, self.way = 0, way

        def step(self, command: str) -> SimpleNamespace:
            assert command == "turn left"
            shown = []
            for _ in range(frames):
                self.at += self.way
                shown.append(walls[ORDER[self.at // 10 % 4]])
            return SimpleNamespace(decoded=torch.stack(shown)[None])

    # Two starts, the first by night, when a wall's colour says nothing.
    begun: list[int] = []
    light = torch.tensor([60, 120]).byte()[:, None, None, None, None]
    shots = SimpleNamespace(pixels=lambda rows: light[rows])
    monkeypatch.setattr(courtyard_figures, "history_of", lambda _: 1)
    monkeypatch.setattr(courtyard_figures, "situations", lambda *_: torch.arange(2))
    monkeypatch.setattr(courtyard_figures, "begin", lambda w, d, rows, s: begun.extend(rows))
    config, data = EvaluateConfig(), cast(ChunkDataset, shots)
    assert circles(cast(World, Turning(1)), data, config) == 1
    assert circles(cast(World, Turning(-1)), data, config) == 0
    assert begun == [1, 1]
