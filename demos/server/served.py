"""A world that is served: its batch, its form, and the words that it knows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import torch

from magi_world.demos.server.batching import Batcher, Begin, Made, Step
from magi_world.demos.threads import choose_threads
from magi_world.demos.window.steering import KeyMap
from magi_world.language import Interpreter
from magi_world.world.best_start import best_start
from magi_world.world.snapshot import Snapshot, check_snapshot
from magi_world.world.spec import WorldSpec
from magi_world.world.world import World


class Served:
    """One world of the server, for all who play in it."""

    def __init__(self, source: str, world: World, threads: int | None = None) -> None:
        """Args:
        source: what the world was loaded by.
        world: ``world.num_worlds`` is the size of the batch.
        threads: of the CPU; None measures which number is quickest.
        """
        self.source = source
        self.batcher = Batcher(world)
        self.keymap = KeyMap(world.spec.commands)
        # For headers of session files: every visitor's world is one of a single row.
        config = world.config
        self.alone = World(world.parts, 1, config.attention, config.noise_scale)
        self.best_start = best_start(world.parts)

        def tune(world: World) -> None:
            if threads is not None:
                torch.set_num_threads(threads)
            else:
                choose_threads(self.alone)

        # In the thread that steps the world: the number of threads is a matter of each thread.
        self.batcher.call(self, tune).result()

    @property
    def world(self) -> World:
        """For reading its form, never for stepping it."""
        return self.batcher.world

    @property
    def spec(self) -> WorldSpec:
        """What the world tells about itself."""
        return self.world.spec

    @property
    def interpreter(self) -> Interpreter:
        """Reads what is typed."""
        return self.world.interpreter

    def check(self, state: Snapshot) -> None:
        """Raise ValueError unless play can go on from this state here."""
        check_snapshot(state, self.spec, self.alone._stream)
        if state.num_worlds != 1:
            raise ValueError(f"the state is of {state.num_worlds} worlds; it must be of one")

    async def make(self, owner: object, what: Begin | Step) -> Made:
        """One chunk.

        Raises:
            ValueError: what was asked is wrong.
        """
        return await asyncio.wrap_future(self.batcher.ask(owner, what))

    def describe(self) -> dict[str, Any]:
        """What a page or a program needs to know."""
        spec, sampler = self.spec, self.world.parts.config.sampler
        return {
            "source": self.source,
            "name": spec.name,
            "description": spec.description,
            "frame_size": spec.frame_size,
            "fps": spec.fps,
            "frames_per_chunk": spec.frames_per_chunk,
            "commands": [_command(c.name, c.phrases, self.keymap) for c in spec.commands],
            "default_command": spec.default_command,
            "scene": spec.scene,
            "num_starts": spec.num_starts,
            "fingerprint": spec.fingerprint,
            "window_size": sampler.window_size,
            "num_steps": sampler.num_steps,
        }

    def close(self) -> None:
        """Stop computing."""
        self.batcher.close()


def _command(name: str, phrases: tuple[str, ...], keymap: KeyMap) -> Mapping[str, Any]:
    return {"name": name, "phrases": phrases[:6], "keys": keymap.keys_of(name)}
