"""Training speed of `magi-world train-agent`: chunks a second, and where the time goes.

One JSON line for each number of worlds. The first update warms up and is not counted.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from common import report

from magi_world.agents.ppo.config import TrainAgentConfig
from magi_world.agents.ppo.progress import read_rows
from magi_world.agents.ppo.train import train_agent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("world", nargs="?", default="courtyard")
    parser.add_argument("--real", help="configuration of the simulator to train in instead")
    parser.add_argument("--counts", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--rollout", type=int, default=TrainAgentConfig.rollout)
    parser.add_argument("--updates", type=int, default=3, help="that are measured")
    arguments = parser.parse_args()
    for count in arguments.counts:
        config = replace(
            TrainAgentConfig(world=arguments.world, real=arguments.real),
            num_envs=count,
            rollout=arguments.rollout,
            batch=min(TrainAgentConfig.batch, count * arguments.rollout),
            steps=count * arguments.rollout * (arguments.updates + 1),
        )
        report("agent", {"world": arguments.real or arguments.world, **measure(config)})


def measure(config: TrainAgentConfig) -> dict[str, float]:
    """Figures of a short run: medians over its updates."""
    with TemporaryDirectory() as folder:
        train_agent(config, folder)
        rows = read_rows(Path(folder) / "progress.csv")[1:]

    def typical(name: str) -> float:
        return median(float(row[name]) for row in rows)

    rate, share = typical("steps_per_s"), typical("world_share")
    return {
        "worlds": config.num_envs,
        "rollout": config.rollout,
        "steps_per_s": rate,
        "frames_per_s": typical("frames_per_s"),
        "world_share": share,
        "world_ms_per_step": 1000 * share / rate,
        "learner_ms_per_step": 1000 * (1 - share) / rate,
    }


if __name__ == "__main__":
    main()
