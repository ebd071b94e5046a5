"""Pictures of worlds that are not open, made beside the play, for the picker.

Shapes: H, W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from magi_world.io.package import read_package
from magi_world.loading import find_package
from magi_world.world.best_start import best_start
from magi_world.world.parts import decode_latents
from magi_world.world.spec import WorldSpec


@dataclass(frozen=True)
class Preview:
    """What a world is. picture: (H, W, 3) uint8 of its best start; None where it has none."""

    spec: WorldSpec
    picture: np.ndarray | None = None

    @property
    def obeys(self) -> str:
        """In one line, what can be said to it."""
        names = self.spec.command_names
        return f"obeys: {', '.join(names)}" if names else "obeys any text"


@torch.inference_mode()
def read_preview(name: str) -> Preview:
    """The preview of a shipped or installed world, or of a folder.

    Raises:
        ValueError, OSError: there is no such world, or its files are damaged.
    """
    parts = read_package(find_package(name))
    number = best_start(parts)
    if number is None or parts.starts is None:
        return Preview(parts.spec)
    end = parts.starts[number : number + 1, :, -parts.config.sampler.chunk_width :].float()
    return Preview(parts.spec, decode_latents(parts, end)[0, -1].numpy())


class Previews:
    """Makes them one at a time when they are first asked for."""

    def __init__(self, read: Callable[[str], Preview] = read_preview) -> None:
        """``read`` makes one."""
        self._read = read
        self._pool: ThreadPoolExecutor | None = None
        self._made: dict[str, Future[Preview]] = {}

    def get(self, name: str) -> Preview | None:
        """The preview of a world, once there is one; None before, and where none can be made."""
        if name not in self._made:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="previews")
            self._made[name] = self._pool.submit(self._read, name)
        made = self._made[name]
        return made.result() if made.done() and made.exception() is None else None

    def close(self) -> None:
        """No more of them."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
