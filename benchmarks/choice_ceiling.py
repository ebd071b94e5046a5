"""What `choice_of_truth` could be at most: the simulator itself in the place of the dream.

    python benchmarks/choice_ceiling.py configs/crafter.yaml --clips 12 [--warm 1000]

`eval-world` counts a choice as right when the dream under the true command is strictly nearer to
what came than the dreams of three others. Where another command would have shown the very same
pictures (an iron sword with nothing to make it of, "turn left" beside "turn around"), even a
perfect world cannot tell. Here the recording's policy plays, and at chunks that are drawn by chance
the simulator goes on under three other commands as well. One JSON line: per command, for the groups
of `obedience` and over all, the share of clips in which none of the three shows the same
(``distinct``), and in which none comes nearer than ``--db`` to it (``apart``: what a world whose
pictures are that good could tell).
"""

from __future__ import annotations

import argparse
import copy
from collections import defaultdict
from pathlib import Path

import numpy as np
from common import report

from magi_world.simulator import ChunkSimulator, RecordConfig
from magi_world.training.judge import OTHERS
from magi_world.training.policies import make_policy
from magi_world.training.rollout import HISTORY
from magi_world.training.settings import read_settings

SAME = 1e-9  # mean squared error of pixels below which two chunks are the same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--clips", type=int, default=12, help="of a command")
    parser.add_argument("--warm", type=int, default=1000, help="chunks of an episode, at most")
    parser.add_argument("--db", type=float, default=28.0, help="PSNR of the pictures of a world")
    parser.add_argument("--episodes", type=int, default=40, help="at most")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    config = read_settings(arguments.config).record
    distinct, apart = measured(config, arguments)
    names = list(config.actions)
    scenes = list(config.scenes.options) if config.scenes else []
    goals = [n for n in names if n not in {*config.moves, *scenes}]
    groups = {"moves": config.moves, "scenes": scenes, "goals": goals, "all": names}
    report(
        "choice_ceiling",
        {
            "world": arguments.config.stem,
            "clips": {n: len(distinct[n]) for n in names},
            **{f"distinct_{g}": mean_of(distinct, members) for g, members in groups.items()},
            **{f"apart_{g}": mean_of(apart, members) for g, members in groups.items()},
            "distinct": {n: mean_of(distinct, [n]) for n in names},
            "apart": {n: mean_of(apart, [n]) for n in names},
        },
    )


def mean_of(found: dict[str, list[bool]], names: list[str]) -> float | None:
    """The mean of the commands' means; None where none was seen."""
    rates = [float(np.mean(found[n])) for n in names if found[n]]
    return round(float(np.mean(rates)), 4) if rates else None


def measured(
    config: RecordConfig, arguments: argparse.Namespace
) -> tuple[dict[str, list[bool]], dict[str, list[bool]]]:
    """Whether each clip of a command could be told, exactly and at ``--db``."""
    rng = np.random.default_rng([arguments.seed, 11])
    simulator = ChunkSimulator(config)
    policy = make_policy(config, simulator, rng)
    forks = Forks(config, simulator)
    names = simulator.commands
    least = 255.0**2 / 10 ** (arguments.db / 10)
    distinct: dict[str, list[bool]] = defaultdict(list)
    apart: dict[str, list[bool]] = defaultdict(list)
    for _ in range(arguments.episodes):
        forks.seed, forks.held = int(rng.integers(2**31)), []
        simulator.reset(forks.seed)
        policy.reset()
        for i in range(arguments.warm):
            truth = names.index(policy.command())
            futures: list[np.ndarray] = []
            # Not the first chunks, which have no history, and neighbours are nearly the same clip.
            wanted = i >= HISTORY and len(distinct[names[truth]]) < arguments.clips
            if wanted and rng.random() < 0.3:
                others = [r for r in range(len(names)) if r != truth]
                picked = rng.choice(others, OTHERS, replace=False)
                futures = [forks.future(int(other)) for other in picked]
            chunk = simulator.chunk(truth)
            forks.held.append(truth)
            if chunk.ended or chunk.cut:
                break
            if futures:
                nearest = min(np.square(f.astype(float) - chunk.frames).mean() for f in futures)
                distinct[names[truth]].append(bool(nearest > SAME))
                apart[names[truth]].append(bool(nearest > least))
        if all(len(distinct[n]) >= arguments.clips for n in names):
            break
    simulator.close()
    return distinct, apart


class Forks:
    """Other futures of the present moment: of a copy of the simulator where it can be copied,
    else of a second one that plays the episode again."""

    def __init__(self, config: RecordConfig, simulator: ChunkSimulator) -> None:
        self.simulator, self.seed = simulator, 0
        self.held: list[int] = []
        self.second = None if goes_on(simulator) else ChunkSimulator(config)

    def future(self, command: int) -> np.ndarray:
        """Frames (T, H, W, 3) of a chunk under a command."""
        if self.second is None:
            return copy.deepcopy(self.simulator).chunk(command).frames
        self.second.reset(self.seed)
        for row in self.held:
            self.second.chunk(row)
        return self.second.chunk(command).frames


def goes_on(simulator: ChunkSimulator) -> bool:
    """Whether a copy of the simulator goes on from the same moment: some begin anew."""
    simulator.reset(0)
    try:
        copied = copy.deepcopy(simulator)
        seen = [s.chunk(0).frames for s in (simulator, copied) for _ in range(2)]
    except Exception:  # whatever a simulator raises that cannot be copied
        return False
    return np.array_equal(seen[:2], seen[2:])


if __name__ == "__main__":
    main()
