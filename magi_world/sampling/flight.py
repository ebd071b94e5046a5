"""Which chunks of one world are in flight, and the noise that each starts from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Flight:
    """The pipeline of one world: ``count`` consecutive chunks, oldest (cleanest) first.

    first: index of the oldest chunk, counted from the start of the video.
    count: chunks in flight.
    newest_stage: stage of the newest one; each older chunk is one stage further.
    """

    first: int = 0
    count: int = 0
    newest_stage: int = 0

    @property
    def end(self) -> int:
        """Index of the next chunk to be admitted."""
        return self.first + self.count

    def stages(self) -> list[int]:
        """Stage of every chunk in flight, oldest first."""
        return [self.newest_stage + i for i in reversed(range(self.count))]

    def admit(self) -> Flight:
        """One more chunk, as pure noise.

        Raises:
            ValueError: chunks are being drained, so that the new one would leave a gap.
        """
        if self.count and self.newest_stage != 1:
            raise ValueError(
                f"a chunk cannot be admitted while {self.count} chunks are being drained; "
                "drain them all or reset the world first"
            )
        return replace(self, count=self.count + 1, newest_stage=0)

    def advance(self, window: int) -> tuple[Flight, bool]:
        """One stage on; the flag says that the oldest chunk has become clean and has left."""
        landed = self.newest_stage + self.count == window
        return Flight(
            first=self.first + landed,
            count=self.count - landed,
            newest_stage=self.newest_stage + 1,
        ), landed


def seeded_noise(seed: int, index: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise of chunk ``index``, float32 on the CPU.

    A function of (seed, index) alone: no generator has to be carried along, and a chunk starts
    from the same noise whatever the window, the batch or the device.
    """
    digest = hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    return torch.randn(shape, generator=generator)
