"""How a transformer is split, as arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest

from magi_world.io.released import preset
from magi_world.parallel.split import Split, check_split, head_splits, parse_split, part_of, runs

SMALL = preset("magi-1-4.5b-distill").dit
LARGE = preset("magi-1-24b-distill").dit


def test_ranks_that_the_released_models_have() -> None:
    assert head_splits(SMALL) == [1, 2, 4, 8, 24]
    assert head_splits(LARGE) == [1, 2, 4, 8, 16, 24, 48]


@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 24])
def test_every_head_has_one_rank_and_finds_its_group_there(ranks: int) -> None:
    parts = [part_of(Split(ranks), SMALL, rank) for rank in range(ranks)]
    assert [h for part in parts for h in part.heads] == list(range(24))
    for part in parts:
        # Attention reads group i // share of those at hand; that must be the head's own group.
        share = len(part.heads) // len(part.groups)
        for place, head in enumerate(part.heads):
            assert part.groups[place // share] == head // 3


def test_stages_have_all_layers_in_order() -> None:
    parts = [part_of(Split(ranks=8, stages=3), SMALL, 8 * stage) for stage in range(3)]
    assert [len(p.layers) for p in parts] == [12, 11, 11]
    assert [i for p in parts for i in p.layers] == list(range(34))


def test_runs_are_even() -> None:
    assert runs(10, 4) == [range(3), range(3, 6), range(6, 8), range(8, 10)]
    assert runs(1, 2) == [range(1), range(1, 1)]


def test_numbers_that_do_not_divide_are_refused_with_those_that_do() -> None:
    with pytest.raises(ValueError, match=r"24 query heads over 8 .* 3 ranks; .* 1, 2, 4, 8, 24"):
        check_split(Split(3), SMALL)
    with pytest.raises(ValueError, match="layers as well: 8x2, 4x4, 2x8"):
        check_split(Split(16), SMALL)
    with pytest.raises(ValueError, match="34 layers cannot be split over 35 stages"):
        check_split(Split(1, 35), SMALL)
    one_group = replace(SMALL, heads=6, kv_groups=1)
    assert head_splits(one_group) == [1, 2, 3, 6]


@pytest.mark.parametrize(
    ("parallel", "started", "expected"),
    [
        (None, 4, None),
        ("auto", None, None),
        ("auto", 4, Split(4)),
        (1, None, None),
        ("2x8", 16, Split(8, 2)),
        ("4", 4, Split(4)),
    ],
)
def test_what_may_be_asked_for(
    parallel: int | str | None, started: int | None, expected: Split | None
) -> None:
    assert parse_split(parallel, started) == expected


@pytest.mark.parametrize("parallel", [0, -1, True, "two", "2x", "x2", "0x2", "", 2.0])
def test_nonsense_is_refused(parallel: object) -> None:
    with pytest.raises(ValueError, match="parallel is"):
        parse_split(parallel, 2)  # type: ignore[arg-type]


def test_another_number_of_processes_is_refused_with_the_command() -> None:
    with pytest.raises(ValueError, match="2, 2 processes, but torchrun started 4"):
        parse_split(2, 4)
    with pytest.raises(ValueError, match=r"torchrun --nproc-per-node 4"):
        parse_split("2x2", None)
