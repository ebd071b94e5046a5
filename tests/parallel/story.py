"""A story of one world, for any number of processes: what each moment of it looked like.

    torchrun --nproc-per-node N story.py PACKAGE PARALLEL OUT.safetensors [SNAPSHOT]

With a snapshot file the story begins there.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

import magi_world
from magi_world.io.safetensors_io import save_tensors
from magi_world.world.world import World

FRAME_SIZE = (48, 80)


def tell(folder: str, parallel: str | None, out: str) -> dict[str, Tensor]:
    """Steps, forks, a batch of forks, a reset of one world, and back through a file."""
    world = open_world(folder, parallel)
    seen: dict[str, Tensor] = {}
    world.reset(seed=3, start="text")
    for index, command in enumerate(["turn left", "walk forward", "stand still"]):
        seen[f"step.{index}"] = world.step(command).latents
    before = world.snapshot()
    left, right = world.fork(2)
    seen["left"] = left.step("turn left").latents
    seen["right"] = right.step(["turn right", "stand still"]).latents
    seen["on"] = world.step("walk forward").latents
    before.save(f"{out}.snapshot")
    world.restore(before)
    seen["back"] = world.step("walk forward").latents
    wide = world.fork_batch(2)
    seen["wide"] = wide.step(["turn left", "turn right"] * 2).latents
    world.restore(magi_world.Snapshot.load(f"{out}.snapshot"))
    seen["from file"] = world.step("walk forward").latents
    world.reset(seed=9, worlds=[1], start="text")
    seen["reset"] = world.step(None).latents
    return seen


def go_on(folder: str, parallel: str | None, snapshot: str) -> dict[str, Tensor]:
    """The story from a file on."""
    world = open_world(folder, parallel)
    world.restore(magi_world.Snapshot.load(snapshot))
    return {"on": world.step("walk forward").latents, "later": world.step("turn left").latents}


def open_world(folder: str, parallel: str | None) -> World:
    """Two worlds with frames that give uneven numbers of tokens to 4 ranks."""
    torch.set_num_threads(1)
    return magi_world.load_world(
        folder,
        num_worlds=2,
        device="cpu",
        frame_size=FRAME_SIZE,
        parallel=parallel,
        engine=None,  # the order of sums that a split transformer has
    )


if __name__ == "__main__":
    package, ranks, file, *rest = sys.argv[1:]
    parallel = None if ranks == "none" else ranks
    result = go_on(package, parallel, *rest) if rest else tell(package, parallel, file)
    save_tensors(file, result)
