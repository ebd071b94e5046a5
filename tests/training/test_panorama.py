"""The bent picture: a turn is a shift, the horizon stays, rows at the edges are taken whole."""

from __future__ import annotations

import math

import numpy as np
import pytest

from magi_world.training.simulators.panorama import ANGLE, FLAT, cylinder


def flat_view(heading: float, height: int, width: int) -> np.ndarray:
    """What a flat camera sees of a wall all around, whose colour is the direction in degrees, and
    of which ever fewer rows are seen the further aside (height, width, 2)."""
    x = ((np.arange(width) + 0.5) / width * 2 - 1) * math.tan(math.radians(FLAT / 2))
    y = (np.arange(height) + 0.5) / height * 2 - 1
    aside = np.degrees(np.arctan(x))
    level = y[:, None] * np.cos(np.arctan(x))  # height over distance along the ground
    return np.stack([np.broadcast_to(heading + aside, level.shape), level], -1)


def bent(heading: float, side: int = 64) -> np.ndarray:
    picture = flat_view(heading, 384, 512)
    return picture.reshape(-1, 2)[cylinder(384, 512, side)].reshape(side, side, 2)


def test_columns_are_angles_and_rows_are_heights() -> None:
    seen = bent(0.0)
    step = ANGLE / 64
    expected = (np.arange(64) + 0.5) * step - ANGLE / 2
    np.testing.assert_allclose(seen[10, :, 0], expected, atol=0.2)
    assert np.ptp(seen[:, :, 1], axis=1).max() < 0.01
    assert seen[0, 32, 1] == pytest.approx(-math.cos(math.radians(ANGLE / 2)), abs=0.02)


def test_a_turn_is_a_shift() -> None:
    before, after = bent(0.0), bent(9.0)  # eight of sixty-four pixels
    np.testing.assert_allclose(after[:, :-8], before[:, 8:], atol=0.3)


def test_every_pixel_lies_in_the_flat_picture() -> None:
    index = cylinder(48, 64, 80)
    assert index.shape == (6400,)
    assert index.min() >= 0
    assert index.max() < 48 * 64
