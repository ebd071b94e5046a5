"""What a perfect world could tell: pushes of a bar that end elsewhere, and those that do not."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest
from toy import Bar, record_config

from magi_world.simulator import ChunkSimulator

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import choice_ceiling
from choice_ceiling import Forks, goes_on, measured


class Fresh(Bar):
    """A bar whose copies begin anew, as those of a simulator in another process do."""

    def __deepcopy__(self, memo: object) -> Fresh:
        return Fresh(most=self.most, age=self.oldest)


def make_fresh() -> Fresh:
    return Fresh(most=1000, age=1000)


@pytest.mark.parametrize("env", ["toy:make()", "test_choice_ceiling:make_fresh()"])
def test_a_fork_is_what_would_have_come(env: str) -> None:
    config = record_config(env=env)
    simulator = ChunkSimulator(config)
    forks = Forks(config, simulator)
    assert goes_on(simulator) == (forks.second is None) == (env == "toy:make()")
    forks.seed, forks.held = 5, [1, 0]
    simulator.reset(5)
    for row in forks.held:
        simulator.chunk(row)
    futures = [forks.future(command) for command in range(3)]
    np.testing.assert_array_equal(futures[2], simulator.chunk(2).frames)
    assert not np.array_equal(futures[1], futures[2])


def test_a_bar_at_the_side_cannot_be_told_from_one_that_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choice_ceiling, "OTHERS", 2)
    told = argparse.Namespace(clips=8, warm=40, db=28.0, episodes=30, seed=0)
    config = record_config(env_options={"most": 1000, "age": 1000})
    distinct, apart = measured(config, told)
    assert len(distinct["go left"]) == 8
    # After a push or two the bar is at a side: there "stay" is the same as a push against it.
    assert 0 < np.mean(distinct["stay"]) < 1
    assert distinct == apart
