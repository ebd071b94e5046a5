"""PPO in a dream with RLlib's loop against our own: chunks and frames a second.

    python benchmarks/rllib_cpu.py [WORLD] [--seconds 240] [--worlds 16]

Needs the extras ray and sb3. Both loops train the same policy in the same batch of worlds, in this
process, and take turns until the time is over; the first update of a turn warms up and is not
counted. "share" is RLlib's environment frames a second over ours, all that an update does included;
"world_share" compares the time outside of learning alone. Every turn prints a JSON line of all so
far; the last one counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from common import note, options, report

from magi_world.agents.cluster import cluster
from magi_world.agents.ppo.config import TrainAgentConfig
from magi_world.agents.ppo.progress import read_rows
from magi_world.agents.ppo.rllib import train_agent_with_rllib
from magi_world.agents.ppo.train import train_agent
from magi_world.loading import DEFAULT_WORLD

ENGINES: dict[str, Callable[..., Path]] = {"sb3": train_agent, "rllib": train_agent_with_rllib}
TURNS = 2  # of each engine, if starting takes no time
MANY = 10**6  # updates; the clock ends a turn


class Enough(Exception):
    """The time of a turn is over."""


def main() -> None:
    """See the module."""
    parser = options(__doc__, seconds=240)
    parser.add_argument("world", nargs="?", default=DEFAULT_WORLD)
    parser.add_argument("--worlds", type=int, default=16, help="in the batch")
    parser.add_argument("--rollout", type=int, default=8, help="chunks of each in an update")
    given = parser.parse_args()
    worlds, rollout = (2, 2) if given.tiny else (given.worlds, given.rollout)
    config = TrainAgentConfig(
        world=given.world,
        num_envs=worlds,
        rollout=rollout,
        batch=min(TrainAgentConfig.batch, worlds * rollout),
        steps=worlds * rollout * MANY,
        checkpoints=1,
        save_seconds=1e9,
    )
    seconds = 0.0 if given.tiny else given.seconds
    end, rows = time.monotonic() + seconds, {name: [] for name in ENGINES}
    with cluster():
        while True:
            begun = time.monotonic()
            for engine in ENGINES:
                rows[engine] += turn(replace(config, engine=engine), seconds / 2 / TURNS)
                rate = median(float(row["steps_per_s"]) for row in rows[engine])
                note(f"{engine}: {len(rows[engine])} updates, {rate:.3g} chunks a second")
            over = 2 * time.monotonic() - begun > end
            report("rllib_cpu", {"world": given.world, **compared(rows, config)}, done=over)
            if over:
                return


def turn(config: TrainAgentConfig, seconds: float) -> list[dict[str, Any]]:
    """The updates of an engine within so many seconds, at least one that counts."""
    end = time.monotonic() + seconds
    with TemporaryDirectory() as folder:
        file = Path(folder) / "progress.csv"

        def tell(line: str) -> None:
            if time.monotonic() > end and file.exists() and len(read_rows(file)) > 1:
                raise Enough

        with suppress(Enough):
            ENGINES[config.engine](config, folder, tell)
        return read_rows(file)[1:]


def compared(rows: dict[str, list[dict[str, Any]]], config: TrainAgentConfig) -> dict[str, Any]:
    """Medians over all updates."""
    figures: dict[str, Any] = {"worlds": config.num_envs, "rollout": config.rollout}
    for engine, found in rows.items():
        steps = median(float(row["steps_per_s"]) for row in found)
        inside = median(float(row["steps_per_s"]) / float(row["world_share"]) for row in found)
        figures[engine] = {
            "updates": len(found),
            "steps_per_s": steps,
            "frames_per_s": median(float(row["frames_per_s"]) for row in found),
            "sampled_steps_per_s": inside,
        }
    ours, theirs = figures["sb3"], figures["rllib"]
    return {
        **figures,
        "share": theirs["frames_per_s"] / ours["frames_per_s"],
        "world_share": theirs["sampled_steps_per_s"] / ours["sampled_steps_per_s"],
    }


if __name__ == "__main__":
    main()
