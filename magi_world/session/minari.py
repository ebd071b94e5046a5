"""A session as a Minari dataset: what was seen and what was said, for offline learning.

Shapes: T video frames, H, W pixels. One step of an episode is one chunk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from magi_world.config import require
from magi_world.io.offline import DatasetConfig, check_name, text_space, write_dataset
from magi_world.session.events import Fork, Keep, Load, Reset, Rewind, Save, Step
from magi_world.session.player import perform_all
from magi_world.session.session import Session
from magi_world.world.world import World


@dataclass
class Episode:
    """One run from a reset: ``frames`` has one chunk (T, H, W, 3) more than ``commands``."""

    seed: int
    frames: list[np.ndarray] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    def until(self, chunk: int) -> Episode:
        """The first ``chunk`` steps of it."""
        return Episode(self.seed, self.frames[: chunk + 1], self.commands[:chunk])


def episodes(session: Session, world: World) -> list[Episode]:
    """The session performed again, as episodes; what was rewound or not kept is left out.

    Raises:
        ValueError: a session of several worlds, one that goes on from an earlier session, or an
            event that this world cannot perform.
    """
    require(world.num_worlds == 1, f"a dataset is of one world; this has {world.num_worlds}")
    done: list[Episode] = []
    now, slots, futures = Episode(0), dict[str, Episode](), list[Episode]()
    for event, chunk in perform_all(session, world):
        match event:
            case Reset(seeds=seeds) if chunk is not None:
                done.append(now)
                now = Episode(seeds[0], [chunk.frames[0]])
            case Step() if chunk is not None:
                running = futures or [now]
                for episode, frames, command in zip(
                    running, chunk.frames, chunk.prompts, strict=True
                ):
                    episode.frames.append(frames)
                    episode.commands.append(command)
            case Rewind(index):
                now = now.until(index)
            case Save(slot, index):
                slots[slot] = now.until(len(now.commands) if index is None else index)
            case Load(slot):
                require(slot in slots, f"slot {slot!r} is of another session; export that one")
                done.append(now)
                now = slots[slot].until(len(slots[slot].commands))
            case Fork(count):
                futures = [now.until(len(now.commands)) for _ in range(count)]
            case Keep(future):
                now, futures = futures[future], []
    return [episode for episode in [*done, now] if episode.commands]


def export_minari(session: Session, world: World, dataset: str) -> Any:
    """Write a Minari dataset; rewards are 0, because a session has none.

    Args:
        dataset: its name, e.g. "arena/human-v0".

    Raises:
        ImportError: Minari is not installed.
        ValueError: as `episodes`, a command that Minari cannot hold, or a name that is taken.
    """
    check_name(dataset)
    from minari.data_collector import EpisodeBuffer

    runs = episodes(session, world)
    require(bool(runs), "the session made no chunk; there is nothing to export")
    shape = (world.spec.frames_per_chunk, *world.spec.frame_size, 3)
    config = DatasetConfig(
        dataset,
        observation_space=Box(0, 255, shape, np.uint8),
        action_space=text_space(c for run in runs for c in run.commands),
        algorithm="session",
        description=f"{len(runs)} episodes of {world.spec.name}, a magi-world session",
    )
    buffers = (
        EpisodeBuffer(
            seed=run.seed,
            observations=run.frames,
            actions=run.commands,
            rewards=[0.0] * len(run.commands),
            terminations=[False] * len(run.commands),
            truncations=[*[False] * (len(run.commands) - 1), True],
        )
        for run in runs
    )
    return write_dataset(config, buffers)
