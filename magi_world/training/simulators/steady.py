"""Walking without inertia in ViZDoom: what is held moves at once, what is let go stops at once.

In Doom a player takes 24 tics to come to full speed and as many to stop, so that a picture under
"stand still" goes on sliding under what was held before. Here the way of every frame is given: the
push is worked out that makes it, from the velocity that the pushes so far have left.

Per tic a push u is added to the velocity, the player moves by it, and friction leaves FRICTION of
it. Angles are degrees, 0 is east, counterclockwise; lengths are the game's units.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from magi_world.training.simulators.vizdoom import pose

PUSHES = ("MOVE_FORWARD_BACKWARD_DELTA", "MOVE_LEFT_RIGHT_DELTA", "TURN_LEFT_RIGHT_DELTA")
FRICTION = 0.90625  # what a tic leaves of a velocity
STRENGTH = 4  # of the player, against the game's own: enough to turn a walk round in a frame
PUSH = 0.03125 * STRENGTH  # velocity that one unit of the buttons adds
MOST = 50.0  # units of the buttons that the game takes, whole ones only
BLOCKED = 1.0  # a way that is so much shorter was barred
FORWARD, BACKWARD, ASIDE = 5.0, 4.0, 4.0  # units a tic


def sums(tics: int) -> tuple[float, float]:
    """How far a velocity of 1 and a constant push of 1 carry in ``tics``."""
    coast = [sum(FRICTION**j for j in range(i)) for i in range(1, tics + 1)]
    return coast[-1], sum(coast)


def push_for(velocity: np.ndarray, way: np.ndarray, tics: int) -> np.ndarray:
    """The push (2,) per tic that makes the way of ``tics`` tics ``way`` (2,)."""
    coast, pushed = sums(tics)
    return (way - velocity * coast) / pushed


def velocity_after(
    velocity: np.ndarray, push: np.ndarray, way: np.ndarray, tics: int
) -> np.ndarray:
    """The velocity (2,) behind ``tics`` tics of ``push`` in which ``way`` was covered: nothing
    along an axis on which a wall stood in the way."""
    coast, pushed = sums(tics)
    free = np.abs(way - (velocity * coast + push * pushed)) < BLOCKED
    return np.where(free, FRICTION**tics * velocity + FRICTION * coast * push, 0.0)


def steady(game: Any, tics: int) -> Any:
    """``game`` with the buttons `PUSHES`, as an environment of the four moves and a turn.

    Args:
        tics: of a step, the game's ``frame_skip``.
    """
    import gymnasium

    class Steady(gymnasium.Wrapper):
        """Actions: binary (forward, backward, strafe left, strafe right), continuous (degrees to
        the right per tic)."""

        def __init__(self, env: Any) -> None:
            super().__init__(env)
            self.action_space = gymnasium.spaces.Dict(
                {
                    "binary": gymnasium.spaces.MultiBinary(4),
                    "continuous": gymnasium.spaces.Box(-180.0, 180.0, (1,), np.float32),
                }
            )
            self.velocity = np.zeros(2)

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            self.velocity = np.zeros(2)
            return super().reset(seed=seed, options=options)

        def step(self, action: Any) -> Any:
            ahead, back, left, right = (float(x) for x in action["binary"])
            turn = float(action["continuous"][0])
            before = pose(self.env)
            if before is None:
                return super().step(np.array([0.0, 0.0, turn], np.float32))
            # The game turns before it pushes: the middle of the frame stands for all of it.
            angle = math.radians(before[2] - turn * (tics + 1) / 2)
            axes = np.array(
                [[math.cos(angle), math.sin(angle)], [math.sin(angle), -math.cos(angle)]]
            )  # forward, right
            speed = np.array([FORWARD * ahead - BACKWARD * back, ASIDE * (right - left)])
            units = axes @ push_for(self.velocity, axes.T @ speed * tics, tics) / PUSH
            units = units.round().clip(-MOST, MOST)
            out = super().step(np.array([*units, turn], np.float32))
            after = pose(self.env)
            if after is not None:
                way = np.array([after[0] - before[0], after[1] - before[1]])
                self.velocity = velocity_after(self.velocity, axes.T @ units * PUSH, way, tics)
            return out

    return Steady(game)
