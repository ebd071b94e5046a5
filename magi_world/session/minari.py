"""A session as a Minari dataset: what was seen and what was said, for offline learning.

Shapes: T video frames, H, W pixels. One step of an episode is one chunk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box

from magi_world.config import require
from magi_world.io.offline import DatasetConfig, check_name, text_space, write_dataset
from magi_world.session.player import Run, Runs, perform_all
from magi_world.session.session import Session
from magi_world.world.world import World

Made = tuple[np.ndarray, str]  # frames of a chunk, and the command that it was made under


def episodes(session: Session, world: World) -> list[Run[Made]]:
    """The session performed again, as episodes; what was rewound or not kept is left out.

    Raises:
        ValueError: a session of several worlds, one that goes on from an earlier session, or an
            event that this world cannot perform.
    """
    require(world.num_worlds == 1, f"a dataset is of one world; this has {world.num_worlds}")
    runs: Runs[Made] = Runs()
    for event, chunk in perform_all(session, world):
        made = () if chunk is None else zip(chunk.frames, chunk.prompts, strict=True)
        try:
            runs.happened(event, list(made))
        except ValueError as error:
            raise ValueError(f"{error}; export that one") from None
    return [run for run in [*runs.done, runs.now] if len(run.items) > 1]


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
        action_space=text_space(c for run in runs for _, c in run.items[1:]),
        algorithm="session",
        description=f"{len(runs)} episodes of {world.spec.name}, a magi-world session",
    )
    buffers = (
        EpisodeBuffer(
            seed=run.reset.seeds[0],
            observations=[frames for frames, _ in run.items],
            actions=[command for _, command in run.items[1:]],
            rewards=[0.0] * steps,
            terminations=[False] * steps,
            truncations=[*[False] * (steps - 1), True],
        )
        for run in runs
        for steps in [len(run.items) - 1]
    )
    return write_dataset(config, buffers)
