"""A picture bent onto a cylinder around the eye, so that a turn shifts it and changes nothing else.

On a flat picture a turn stretches what moves outwards, differently in every column. On a cylinder
every column is an angle: turn by nine degrees and each thing is found eight pixels further, as it
was. A world whose latent cells are eight pixels wide then turns by copying its neighbours.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

ANGLE = 72.0  # degrees from the left edge of the picture to the right one
FLAT = 90.0  # the same of the game's own flat picture


def cylinder(height: int, width: int, side: int) -> np.ndarray:
    """Where the pixels of a bent picture lie in a flat one.

    Args:
        height, width: of the flat picture, which spans `FLAT` degrees.
        side: pixels of the bent square picture, which spans `ANGLE` degrees.

    Returns:
        (side * side,) int64 into the flattened flat picture, row by row. As many rows are taken as
        the flat picture has at the bent one's edges.
    """
    place = (np.arange(side) + 0.5) / side - 0.5  # -0.5 to 0.5
    angle = np.radians(ANGLE) * place
    x = 0.5 * width * (1 + np.tan(angle) / math.tan(math.radians(FLAT / 2)))
    reach = math.cos(math.radians(ANGLE / 2))  # rows at the edges are that much taller
    y = height * (0.5 + place[:, None] * reach / np.cos(angle))
    column = np.broadcast_to(x.astype(np.int64).clip(0, width - 1), y.shape)
    return (y.astype(np.int64).clip(0, height - 1) * width + column).ravel()


def panorama(game: Any, key: str, side: int) -> Any:
    """``game`` with the picture ``key`` of its observation bent onto a cylinder.

    Args:
        side: pixels of the square picture; a multiple of the recorded size, which averages it.
    """
    import gymnasium

    flat = game.observation_space[key]
    height, width, colours = flat.shape
    index = cylinder(height, width, side)

    class Panorama(gymnasium.ObservationWrapper):
        """Pictures (side, side, 3) uint8."""

        def __init__(self, env: Any) -> None:
            super().__init__(env)
            bent = gymnasium.spaces.Box(0, 255, (side, side, colours), np.uint8)
            spaces = {**env.observation_space.spaces, key: bent}
            self.observation_space = gymnasium.spaces.Dict(spaces)

        def observation(self, observation: Any) -> Any:
            picture = observation[key].reshape(-1, colours).take(index, 0)
            return {**observation, key: picture.reshape(side, side, colours)}

    return Panorama(game)
