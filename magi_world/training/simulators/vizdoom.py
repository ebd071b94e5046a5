"""ViZDoom for the recorder: the game, and where things are in it.

Angles are degrees, 0 is east, counterclockwise; a bearing is positive to the left.
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

_ENTERING = threading.Lock()  # the current folder is the whole process's


BUTTONS = ("MOVE_FORWARD", "MOVE_BACKWARD", "MOVE_LEFT", "MOVE_RIGHT", "TURN_LEFT_RIGHT_DELTA")


def make_game(
    frame_skip: int,
    resolution: str,
    scenario: str | None = None,
    buttons: Sequence[str] = BUTTONS,
) -> Any:
    """``VizdoomHealthGathering-MultiBinary-v1`` without HUD and weapon, with other buttons.

    Args:
        scenario: a WAD file; None is the game's own.
        buttons: the game's names of what an action holds.
    """
    import gymnasium
    import vizdoom.gymnasium_wrapper  # noqa: F401  (registers the environments)

    class OwnFolder(gymnasium.Wrapper):
        """The game leaves files in the folder where it is started, and two that start in one folder
        at once fail: so each is started in a new one."""

        folder: tempfile.TemporaryDirectory[str] | None = None

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            if self.folder is not None:
                return super().reset(seed=seed, options=options)
            self.folder = tempfile.TemporaryDirectory(prefix="vizdoom-", ignore_cleanup_errors=True)
            with _ENTERING:
                before = os.getcwd()
                os.chdir(self.folder.name)
                try:
                    return super().reset(seed=seed, options=options)
                finally:
                    os.chdir(before)

        def close(self) -> None:
            super().close()
            if self.folder is not None:
                self.folder.cleanup()
                self.folder = None

    options: dict[str, Any] = {} if scenario is None else {"doom_scenario_path": scenario}
    game = gymnasium.make(
        "VizdoomHealthGathering-MultiBinary-v1",
        frame_skip=frame_skip,
        disable_env_checker=True,
        screen_resolution=resolution,
        available_buttons=list(buttons),
        available_game_variables=["HEALTH", "POSITION_X", "POSITION_Y", "ANGLE"],
        objects_info_enabled=True,
        render_hud=False,
        render_weapon=False,
        render_crosshair=False,
        render_screen_flashes=False,
        **options,
    )
    return OwnFolder(game)


def pose(env: Any) -> tuple[float, float, float] | None:
    """Position x, y and angle of the player, or None between episodes."""
    state = env.unwrapped.state
    if state is None:
        return None
    _, x, y, angle = state.game_variables
    return float(x), float(y), float(angle)


def bearing(x: float, y: float, angle: float, goal: tuple[float, float]) -> float:
    """Degrees to turn left until ``goal`` is straight ahead, in (-180, 180]."""
    return (math.degrees(math.atan2(goal[1] - y, goal[0] - x)) - angle + 180) % 360 - 180


def nearest_medkit(
    env: Any, x: float, y: float, angle: float, chosen: tuple[float, float] | None = None
) -> tuple[float, float] | None:
    """Place of the medkit to go for; ``chosen`` is kept while it is there."""
    items = [
        (float(o.position_x), float(o.position_y))
        for o in env.unwrapped.state.objects
        if "edi" in o.name
    ]
    if chosen in items:
        return chosen
    costs = [math.hypot(a - x, b - y) + 3.0 * abs(bearing(x, y, angle, (a, b))) for a, b in items]
    return items[int(np.argmin(costs))] if items else None
