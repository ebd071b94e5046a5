"""Does a dream do what it is told, also where the words name a goal or change the scene?

For a goal no judge of motion helps: what "go to the white pillar" looks like depends on where one
stands. So the recording itself is asked: behind a held-out history, from the same noise, the chunk
is dreamed under the command that was really held and under other ones; the true command's dream
should be nearest to what really came.

Legend: B worlds dreamed in one batch, n clips, T frames a chunk, H W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from magi_world.training.dataset import ChunkDataset
from magi_world.training.record import RecordConfig
from magi_world.training.rollout import begin, filled, history_of
from magi_world.training.settings import EvaluateConfig
from magi_world.world.world import World

OTHERS = 3  # wrong commands beside the true one: chance is 1 in 4
STAYS = 20  # chunks that a changed scene must last
WITHIN = 0.1  # share of the real brightness


def obedience(
    world: World, data: ChunkDataset, record: RecordConfig, config: EvaluateConfig
) -> dict[str, Any]:
    """Every figure of this module."""
    scenes = list(record.scenes.options) if record.scenes else []
    choice = choices(world, data, config)
    groups = {"moves": record.moves, "scenes": scenes}
    groups["goals"] = [c for c in record.actions if c not in {*record.moves, *scenes}]
    told: dict[str, Any] = {"choice_of_truth": choice, "chance": 1 / (1 + OTHERS)}
    for group, names in groups.items():
        if found := [choice[n] for n in names if n in choice]:
            told[f"choice_{group}"] = sum(found) / len(found)
    told["choice_all"] = sum(choice.values()) / max(1, len(choice))
    if scenes:
        told["scenes"] = {name: brightness(world, data, record, name, config) for name in scenes}
    return told


def clips_of(data: ChunkDataset, command: int, count: int, seed: int) -> Tensor:
    """First rows of at most ``count`` clips whose chunk behind the history has this command."""
    before = history_of(data)
    rows = data.starts(before + 1)
    rows = rows[(data.command[rows + before] == command) & (data.end[rows + before] == 0)]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return rows[order[:count]]


def choices(world: World, data: ChunkDataset, config: EvaluateConfig) -> dict[str, float]:
    """Per command, in what share of its clips the dream under it was nearest to the truth."""
    names = list(world.spec.command_names)
    before, told = history_of(data), {}
    pick = torch.Generator().manual_seed(config.seed)
    for truth, name in enumerate(names):
        rows = clips_of(data, truth, config.choices, config.seed)
        right = []
        for part in rows.split(world.num_worlds) if len(rows) else ():
            whole = filled(part, world.num_worlds)
            real = data.pixels(whole + before).float()
            begin(world, data, part, config.seed)
            start = world.snapshot()
            others = torch.randperm(len(names) - 1, generator=pick)[:OTHERS]
            errors = []
            for command in [truth, *(others + (others >= truth)).tolist()]:
                world.restore(start)
                made = world.step(names[command]).decoded.cpu().float()
                errors.append((made - real).square().flatten(1).mean(1))
            # Strictly nearer: a world that is deaf dreams the same whatever it is told.
            right.append((errors[0] < torch.stack(errors[1:]).amin(0))[: len(part)])
        if right:
            told[name] = float(torch.cat(right).float().mean())
    return told


def brightness(
    world: World, data: ChunkDataset, record: RecordConfig, name: str, config: EvaluateConfig
) -> dict[str, float]:
    """Whether the picture is as bright as the real one after a change, and stays so.

    Share of held-out clips within 10 %: right after the chunk, and also in the mean of the last of
    20 more chunks under the world's default command, which should not move.
    """
    before = history_of(data)
    names = list(world.spec.command_names)
    rows = clips_of(data, names.index(name), 4 * config.choices, config.seed)
    after, stays = [], []
    for part in rows.split(world.num_worlds) if len(rows) else ():
        whole = filled(part, world.num_worlds)
        real = level(data.pixels(whole + before))
        begin(world, data, part, config.seed)
        made = level(world.step(name).decoded.cpu())
        for _ in range(STAYS):
            last = world.step(world.spec.default_command or name)
        good = ((made - real).abs() < WITHIN * real)[: len(part)]
        kept = ((level(last.decoded.cpu()) - real).abs() < WITHIN * real)[: len(part)]
        after.append(good)
        stays.append(good & kept)
    return {
        "clips": float(len(rows)),
        "after_the_chunk": float(torch.cat(after).float().mean()) if after else 0.0,
        "and_stays": float(torch.cat(stays).float().mean()) if stays else 0.0,
    }


def level(frames: Tensor) -> Tensor:
    """Brightness (n,) of the last frame of uint8 chunks (n, T, H, W, 3)."""
    return frames[:, -1].float().flatten(1).mean(1)
