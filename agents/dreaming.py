"""Datasets of dreams: many episodes of a world, the same whatever the number of workers.

Shapes: B episodes of a unit, T frames a chunk, H, W pixels, n chunks of an episode.

Episodes are dreamed in units of B, each unit one batch in one process, so that the batch, on which
the last bits of sums depend, is always the same. A unit is a file; what is there already is not
dreamed again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from magi_world.agents.basic import Agent, RandomAgent, RandomConfig
from magi_world.agents.config import DreamConfig
from magi_world.agents.jobs import keep_config, served
from magi_world.agents.loading import load_agent
from magi_world.envs.rewards import LearnedReward
from magi_world.envs.vector import MagiWorldVectorEnv, split_infos
from magi_world.io.safetensors_io import load_tensors, read_metadata, save_tensors
from magi_world.loading import LoadOptions
from magi_world.loading import open_world as load
from magi_world.world.spec import WorldSpec

UNITS, PLAN = "units", "plan.json"


@dataclass(frozen=True, eq=False)
class DreamedEpisode:
    """frames: uint8 (n + 1, T, H, W, 3), the start first.    commands: of the n steps.

    rewards: float32 (n,).    ended: by the world's own judgement, not by its length.
    """

    seed: int
    frames: np.ndarray
    commands: tuple[str, ...]
    rewards: np.ndarray
    ended: bool


class Dreamer:
    """A process's batch of worlds, in which units are dreamed."""

    def __init__(self, config: DreamConfig, folder: Path) -> None:
        """Raises:
        ValueError, FileNotFoundError: as `magi_world.load_world`.
        """
        self.config, self.folder = config, folder
        names = ("num_steps", "dtype", "device", "threads")
        options = LoadOptions(**{name: getattr(config, name) for name in names})
        world = load(config.world, 1, options)
        heads = world.parts.heads is not None
        self.env = MagiWorldVectorEnv(
            config.batch,
            world,
            reward=LearnedReward(sample_end=False) if heads else None,
            max_chunks=config.chunks,
            autoreset_mode="NEXT_STEP",
        )

    def __call__(self, unit: int) -> int:
        """Dream a unit and write its file; its number."""
        path = unit_file(self.folder, unit)
        if not path.exists():
            write_unit(path, self._dream(self.config.seeds(unit)))
        return unit

    def _agent(self, seed: int) -> Agent:
        if self.config.agent == "random":
            return RandomAgent(config=RandomConfig(seed, self.config.hold))
        return load_agent(self.config.agent, seed)

    def _dream(self, seeds: Sequence[int]) -> list[DreamedEpisode]:
        agents = [self._agent(seed) for seed in seeds]
        seen, info = self.env.reset(seed=list(seeds))
        facts = {"commands": self.env.world.spec.command_names}
        rows = range(len(seeds))
        frames = [[np.array(seen[row])] for row in rows]
        commands: list[list[str]] = [[] for _ in rows]
        rewards: list[list[float]] = [[] for _ in rows]
        over, ended = [False] * len(seeds), [False] * len(seeds)
        while not all(over):
            infos = split_infos(info, len(seeds))
            said = [
                None if over[row] else agents[row].act(np.asarray(seen[row]), infos[row] | facts)
                for row in rows
            ]
            # Worlds whose episode is over go on, with anything at all, until the others' are.
            idle = self.env.world.spec.command_names[0]
            seen, reward, end, cut, info = self.env.step([s or idle for s in said])
            for row, command in enumerate(said):
                if command is None:
                    continue
                frames[row].append(np.array(seen[row]))
                commands[row].append(command)
                rewards[row].append(float(reward[row]))
                ended[row] = bool(end[row])
                over[row] = ended[row] or bool(cut[row])
        return [
            DreamedEpisode(
                seeds[row],
                np.stack(frames[row]),
                tuple(commands[row]),
                np.array(rewards[row], np.float32),
                ended[row],
            )
            for row in rows
        ]


# Makes, in whatever process it is called, what does units there.
StartDreamer = Callable[[], Callable[[int], int]]
Pool = Callable[[StartDreamer, Sequence[int]], Iterable[int]]


def dream(
    config: DreamConfig, folder: Path, pool: Pool, told: Callable[[int, int], object]
) -> list[Path]:
    """Dream all units that are not there yet; their files.

    Args:
        folder: where they are kept; it is of this configuration alone.
        pool: what runs units, here or elsewhere.
        told: called with (units done, units in all).

    Raises:
        ValueError: the folder is of another configuration.
    """
    (folder / UNITS).mkdir(parents=True, exist_ok=True)
    keep_config(config, folder / PLAN, ("device", "episodes"))  # more may be dreamed later
    open_units = [unit for unit in config.units if not unit_file(folder, unit).exists()]
    done = len(config.units) - len(open_units)
    told(done, len(config.units))
    if open_units:
        for _ in pool(partial(Dreamer, config, folder), open_units):
            done += 1
            told(done, len(config.units))
    return [unit_file(folder, unit) for unit in config.units]


def local_pool(workers: int) -> Pool:
    """Units in ``workers`` processes of this machine; 1 is this process itself."""

    def run(start: StartDreamer, units: Sequence[int]) -> Iterable[int]:
        if workers == 1:
            return map(start(), units)
        return served(start, units, min(workers, len(units)))

    return run


def read_units(config: DreamConfig, files: Iterable[Path]) -> Iterator[DreamedEpisode]:
    """The episodes, in the order of their seeds."""
    left = config.episodes
    for path in files:
        for episode in read_unit(path)[:left]:
            left -= 1
            yield episode


def write_unit(path: Path, episodes: Sequence[DreamedEpisode]) -> None:
    """One file, whole or not there."""
    tensors, facts = {}, []
    for row, episode in enumerate(episodes):
        tensors[f"frames.{row}"] = torch.from_numpy(episode.frames)
        tensors[f"rewards.{row}"] = torch.from_numpy(episode.rewards)
        facts.append({"seed": episode.seed, "commands": episode.commands, "ended": episode.ended})
    save_tensors(path, tensors, {"episodes": json.dumps(facts)})


def read_unit(path: Path) -> list[DreamedEpisode]:
    """The episodes of a unit's file.

    Raises:
        WeightsError: it is damaged.
    """
    facts, tensors = json.loads(read_metadata(path)["episodes"]), load_tensors(path)
    return [
        DreamedEpisode(
            fact["seed"],
            tensors[f"frames.{row}"].numpy(),
            tuple(fact["commands"]),
            tensors[f"rewards.{row}"].numpy(),
            fact["ended"],
        )
        for row, fact in enumerate(facts)
    ]


def drop_units(folder: Path) -> None:
    """The dataset is complete."""
    shutil.rmtree(folder / UNITS)


def unit_file(folder: Path, unit: int) -> Path:
    return folder / UNITS / f"unit-{unit:06d}.safetensors"


def world_spec(name: str) -> WorldSpec:
    return load(name, 1, LoadOptions(device="cpu", threads=None)).spec
