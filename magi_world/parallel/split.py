"""How one transformer is split over ranks, as pure arithmetic.

A split is stages x ranks. The ranks of a stage split the tokens of every chunk among them, and
around attention the heads (Ulysses, arXiv 2309.14509): each keeps the keys of its own heads of the
whole history. Stages split the layers.

    Hq query heads    Hkv key/value groups    R ranks of a stage    P stages    S tokens a chunk
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from magi_world.config import DiTConfig, require

Parallel = int | str | Literal["auto"] | None


@dataclass(frozen=True)
class Split:
    """``stages`` x ``ranks`` processes. Rank of the world = stage * ranks + index."""

    ranks: int = 1
    stages: int = 1

    def __post_init__(self) -> None:
        for name in ("ranks", "stages"):
            value = getattr(self, name)
            require(value >= 1, f"Split.{name} is {value}; it must be at least 1")

    @property
    def size(self) -> int:
        """Processes in all."""
        return self.ranks * self.stages

    def __str__(self) -> str:
        return f"{self.stages}x{self.ranks}"


@dataclass(frozen=True)
class Part:
    """What one process has of a split transformer.

    stage, index: its place.    layers: its run of layers.
    heads, groups: its runs of query heads and of key/value groups.
    """

    split: Split
    stage: int
    index: int
    layers: range
    heads: range
    groups: range

    @property
    def first(self) -> bool:
        """Whether latents come in here."""
        return self.stage == 0

    @property
    def last(self) -> bool:
        """Whether the last layer is here."""
        return self.stage == self.split.stages - 1


def parse_split(parallel: Parallel, started: int | None) -> Split | None:
    """What `load_world(parallel=...)` and `--parallel` mean.

    Args:
        parallel: None, "auto" (all processes that were started), their number, or
            "STAGESxRANKS", e.g. "2x8".
        started: processes that torchrun started; None without torchrun.

    Returns:
        None for a single process.

    Raises:
        ValueError: not one of these, or not the number of processes that were started.
    """
    if parallel is None:
        return None
    if parallel == "auto":
        return None if started is None else Split(started)
    split = _typed(parallel)
    if started is None and split.size == 1:
        return None
    require(
        started is not None,
        f"parallel is {parallel!r}, but this process was not started by torchrun; start it with: "
        f"torchrun --nproc-per-node {split.size} -m magi_world ...",
    )
    require(
        split.size == started,
        f"parallel is {parallel!r}, {split.size} processes, but torchrun started {started}; "
        f"use --nproc-per-node {split.size}, or parallel='auto'",
    )
    return split


def _typed(parallel: object) -> Split:
    if isinstance(parallel, int) and not isinstance(parallel, bool) and parallel >= 1:
        return Split(parallel)
    if isinstance(parallel, str):
        stages, times, ranks = parallel.lower().partition("x")
        numbers = [stages, ranks] if times else ["1", stages]
        if all(n.isascii() and n.isdigit() and int(n) >= 1 for n in numbers):
            return Split(ranks=int(numbers[1]), stages=int(numbers[0]))
    raise ValueError(
        f"parallel is {parallel!r}; it must be None, 'auto', a number of processes, or "
        "'STAGESxRANKS' such as '2x8'"
    )


def head_splits(config: DiTConfig) -> list[int]:
    """Numbers of ranks that the heads can be split over, smallest first.

    They divide the query heads, and divide the groups or are a multiple of them; then each group
    is kept by several ranks.
    """
    return [
        ranks
        for ranks in range(1, config.heads + 1)
        if config.heads % ranks == 0
        and (config.kv_groups % ranks == 0 or ranks % config.kv_groups == 0)
    ]


def check_split(split: Split, config: DiTConfig) -> None:
    """Refuse a split that this transformer does not have.

    Raises:
        ValueError: with those that it has.
    """
    possible = head_splits(config)
    if split.ranks not in possible:
        stages = [
            str(Split(ranks, split.size // ranks))
            for ranks in possible
            if ranks > 1 and split.size % ranks == 0 and split.size // ranks <= config.layers
        ]
        raise ValueError(
            f"{config.heads} query heads over {config.kv_groups} key/value groups cannot be split "
            f"over {split.ranks} ranks; it must be one of {', '.join(map(str, possible))}"
            + (f", or layers as well: {', '.join(stages)} (stages x ranks)" if stages else "")
        )
    require(
        split.stages <= config.layers,
        f"{config.layers} layers cannot be split over {split.stages} stages; it must be at most "
        f"{config.layers}",
    )


def part_of(split: Split, config: DiTConfig, rank: int) -> Part:
    """What process ``rank`` has.

    Raises:
        ValueError: as `check_split`.
    """
    check_split(split, config)
    stage, index = divmod(rank, split.ranks)
    per_rank = config.heads // split.ranks
    heads = range(index * per_rank, (index + 1) * per_rank)
    sharing = config.heads // config.kv_groups
    groups = range(heads[0] // sharing, heads[-1] // sharing + 1)
    return Part(split, stage, index, runs(config.layers, split.stages)[stage], heads, groups)


def runs(count: int, parts: int) -> list[range]:
    """0 .. count - 1 in ``parts`` runs, as even as can be, the longer ones first."""
    length, longer = divmod(count, parts)
    ends = [(i + 1) * length + min(i + 1, longer) for i in range(parts)]
    return [range(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
