"""From `parallel=` to a leader with its world, or to a follower that never comes back."""

from __future__ import annotations

import atexit
import hashlib
from dataclasses import replace

import torch
import torch.distributed as dist

from magi_world.config import DiTConfig, require
from magi_world.model.dit import DiT
from magi_world.parallel.channel import Channel
from magi_world.parallel.dit import RankDiT
from magi_world.parallel.follow import follow
from magi_world.parallel.lead import LeadDiT, LeadTiles
from magi_world.parallel.ranks import Ranks, torchrun_place
from magi_world.parallel.split import Parallel, parse_split
from magi_world.world.parts import WorldParts

# How long the slowest process may take to read its weights, in seconds.
LOADING = 3600.0


class Team:
    """The processes of one world, as one of them sees them."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.channel = Channel(ranks)

    @property
    def leads(self) -> bool:
        """Whether the world is to live here."""
        return self.ranks.place.leads

    def make_dit(self, config: DiTConfig) -> tuple[DiT, tuple[str, ...]]:
        """This process's part of a transformer, without weights.

        Raises:
            ValueError: it cannot be split over so many.
        """
        dit = LeadDiT(config, self.channel) if self.leads else RankDiT(config, self.ranks)
        return dit, dit.foreign

    def failed(self, error: Exception) -> BaseException:
        """This process cannot load its part: what to raise; the others learn of it."""
        self.ranks.report(f"{type(error).__name__}: {error}")
        return silent_unless_leading(error)

    def enter(self, parts: WorldParts) -> WorldParts:
        """The parts of the world at rank 0. The other processes stay in here until they end.

        Raises:
            ValueError: the processes have not loaded the same.
            SystemExit: on other ranks than 0, once rank 0 is done.
        """
        dit = parts.dit
        assert isinstance(dit, RankDiT), "made by make_dit"
        numbers = hashlib.sha256(repr(parts.config).encode()).hexdigest()[:16]
        world = {"world": parts.spec.name, "weights": parts.spec.fingerprint}
        facts = {**world, "configuration": numbers, "precision": str(dit.dtype)}
        self.ranks.agree("worlds", facts, LOADING)
        if not isinstance(dit, LeadDiT):
            raise SystemExit(follow(self.ranks, dit, parts.vae, parts.make_cache))
        atexit.register(self.channel.close)
        spread = LeadTiles(parts.vae, self.channel)
        size = self.ranks.split.size
        return replace(parts, make_cache=dit.keep(parts.make_cache), spread=spread, processes=size)


def gather_team(parallel: Parallel, device: torch.device) -> Team | None:
    """Meet the other processes, if there are to be any.

    Args:
        parallel: see `magi_world.parallel.split.parse_split`.
        device: of this process.

    Raises:
        ValueError, RankLostError: as `Ranks`.
    """
    place = torchrun_place() if parallel is not None else None
    try:
        split = parse_split(parallel, None if place is None else place.size)
        if split is None or place is None or split.size == 1:
            return None
        require(
            not dist.is_initialized(),
            f"parallel is {parallel!r}, but these processes have a world already; a second one "
            "needs processes of its own",
        )
        return Team(Ranks(place, split, device))
    except ValueError as error:
        raise silent_unless_leading(error) from error


def silent_unless_leading(error: Exception) -> BaseException:
    """``error`` itself at rank 0; elsewhere the end of the process, for rank 0 says the same."""
    place = torchrun_place()
    return error if place is None or place.leads else SystemExit(2)
