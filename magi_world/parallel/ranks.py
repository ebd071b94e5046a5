"""The processes: how they find each other, what they must agree on, and how one that dies is named.

Processes are started by torchrun, which tells each one its place in the variables RANK, WORLD_SIZE,
LOCAL_RANK, MASTER_ADDR and MASTER_PORT. Rank 0 leads; the others do what it says.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from magi_world.config import require
from magi_world.parallel.split import Split

# Followers wait for the leader as long as a person thinks; a process that dies is noticed at once
# all the same, because its connections close.
IDLE = timedelta(days=365)
MEETING = timedelta(seconds=120)
# How long a survivor waits for the others to say that they live, in seconds.
ROLL_CALL = 3.0
LAYERS, TOKENS = "layers", "tokens"


class RankLostError(ConnectionError):
    """A process has gone, or the processes are no longer in step; the world cannot go on."""


@dataclass(frozen=True)
class Place:
    """A process among those that torchrun started."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int
    agent_store: bool

    @property
    def leads(self) -> bool:
        """Whether it says what is done."""
        return self.rank == 0


def torchrun_place() -> Place | None:
    """This process's place; None where torchrun did not start it.

    Raises:
        ValueError: a variable is missing or no number.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    rank = _number("RANK")
    size = _number("WORLD_SIZE")
    return Place(
        rank,
        size,
        _number("LOCAL_RANK", rank),
        _number("LOCAL_WORLD_SIZE", size),
        os.environ.get("MASTER_ADDR", "127.0.0.1"),
        _number("MASTER_PORT", 29500),
        os.environ.get("TORCHELASTIC_USE_AGENT_STORE", "") == "True",
    )


def rank_device(device: torch.device) -> torch.device:
    """``device``, or of several cards of one machine the one that is this process's."""
    place = torchrun_place()
    if place is None or device.type != "cuda" or ":" in str(device):
        return device
    return torch.device("cuda", place.local_rank)


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    require(text.isdigit(), f"the variable {name} is {text!r}; torchrun sets it to a number")
    return int(text)


class Ranks:
    """The meeting of all processes of one split.

    mesh: stages x ranks of a stage.    control: a group for words, always gloo.
    """

    def __init__(self, place: Place, split: Split, device: torch.device) -> None:
        """Meet the others.

        Raises:
            ValueError: a backend is missing, a port is taken, versions differ, or there are more
                processes than cards.
            RankLostError: the others do not come.
        """
        require(
            split.size == place.size,
            f"the split {split} is for {split.size} processes; {place.size} were started",
        )
        self.place, self.split, self.device = place, split, device
        backend = check_backends(device, place)
        try:
            self.store = dist.TCPStore(
                place.address,
                place.port,
                place.size,
                is_master=place.leads and not place.agent_store,
                timeout=MEETING,
            )
        except (RuntimeError, ValueError) as error:
            if "in use" in str(error) or "EADDRINUSE" in str(error):
                raise ValueError(
                    f"the port {place.port} (MASTER_PORT) is in use; choose another one with "
                    f"torchrun --master-port N"
                ) from error
            raise RankLostError(
                f"rank {place.rank} did not reach {place.address}:{place.port} within "
                f"{MEETING.seconds} s: {_first_line(error)}"
            ) from error
        versions = {
            "magi-world": _version(),
            "torch": torch.__version__.split("+")[0],
            "Python": platform.python_version(),
            "split": str(split),
        }
        self.agree("versions", versions, MEETING.total_seconds())
        with self.watch():
            dist.init_process_group(
                backend, store=self.store, rank=place.rank, world_size=place.size, timeout=IDLE
            )
            self.mesh: DeviceMesh = init_device_mesh(
                device.type, (split.stages, split.ranks), mesh_dim_names=(LAYERS, TOKENS)
            )
            self.control: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=IDLE)

    def agree(self, what: str, mine: Mapping[str, Any], patience: float) -> None:
        """Compare facts with rank 0, waiting at most ``patience`` seconds for every rank.

        Raises:
            ValueError: on every rank, where one has other facts.
            RankLostError: a rank does not answer.
        """
        place = self.place
        key = f"magi/{what}"
        self.store.set(f"{key}/{place.rank}", json.dumps(dict(mine)))
        end, silent = time.monotonic() + patience, list(range(place.size))
        while silent := [r for r in silent if not self.store.check([f"{key}/{r}"])]:
            for rank in silent:
                if reason := self.word_of(rank):
                    raise RankLostError(f"rank {rank} of {place.size} has stopped: {reason}")
            if time.monotonic() > end:
                raise RankLostError(
                    f"{ranks_text(silent)} of {place.size} did not come to compare {what}"
                )
            time.sleep(0.02)
        told = [json.loads(self.store.get(f"{key}/{r}")) for r in range(place.size)]
        for rank, facts in enumerate(told):
            for name, value in told[0].items():
                require(
                    facts.get(name) == value,
                    f"the processes differ in {name}: rank 0 has {value}, rank {rank} has "
                    f"{facts.get(name)}; give all the same",
                )

    def watch(self) -> Watch:
        """A context in which the fault of a connection becomes a `RankLostError`."""
        return Watch(self)

    def report(self, reason: str) -> None:
        """Leave word why this process ends, for the one error that is shown."""
        try:
            self.store.set(f"magi/error/{self.place.rank}", reason)
        except RuntimeError:
            return  # who kept the messages has gone as well

    def word_of(self, rank: int) -> str:
        """Why that process has stopped, if it has said so; else nothing."""
        key = f"magi/error/{rank}"
        return self.store.get(key).decode() if self.store.check([key]) else ""

    def who_is_lost(self) -> str:
        """Call the roll: which process has gone, and what it left as a reason."""
        me, size = self.place.rank, self.place.size
        try:
            self.store.set(f"magi/alive/{me}", "yes")
            silent, end = list(range(size)), time.monotonic() + ROLL_CALL
            while silent and time.monotonic() < end:
                for rank in range(size):
                    if rank != me and (reason := self.word_of(rank)):
                        return f"rank {rank} of {size} has stopped: {reason}"
                silent = [r for r in silent if not self.store.check([f"magi/alive/{r}"])]
                time.sleep(0.05)
        except RuntimeError:
            return f"rank 0 of {size} has gone"
        if not silent:
            return f"the connection between the {size} processes is broken"
        return f"{ranks_text(silent)} of {size} {'has' if len(silent) == 1 else 'have'} gone"

    def leave(self) -> None:
        """Give the connections back, all together."""
        if dist.is_initialized():
            with self.watch():
                # Who leaves before the others looks to them like one that has died.
                dist.barrier(group=self.control)
                dist.destroy_process_group()


class Watch:
    """See `Ranks.watch`."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RuntimeError) and _is_fault(error):
            raise RankLostError(self.ranks.who_is_lost()) from error


def _is_fault(error: RuntimeError) -> bool:
    text = str(error)
    return isinstance(error, dist.DistError) or any(
        word in text for word in ("gloo", "Connection", "NCCL", "TCPStore", "Broken pipe", "Socket")
    )


def check_backends(device: torch.device, place: Place) -> str:
    """The backend for tensors on ``device``.

    Raises:
        ValueError: this PyTorch has it not, or there are too few cards.
    """
    require(
        dist.is_available() and dist.is_gloo_available(),
        "this PyTorch was built without gloo, which parallel= needs; install another build",
    )
    if device.type == "cpu":
        return "gloo"
    require(
        device.type == "cuda" and dist.is_nccl_available(),
        f"parallel= on {device.type} needs NCCL, which this PyTorch does not have; use "
        "device='cpu'",
    )
    cards = torch.cuda.device_count()
    require(
        place.local_size <= cards,
        f"{place.local_size} processes were started here, but there are {cards} cards; use "
        f"--nproc-per-node {cards}",
    )
    return "cpu:gloo,cuda:nccl"


def ranks_text(ranks: list[int]) -> str:
    """'rank 1', 'ranks 1, 2'."""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _version() -> str:
    from magi_world import __version__

    return __version__
