"""ViZDoom for the recorder: the environment and a policy that mixes wandering and medkits.

The environment is an ordinary Gymnasium one; only the policy looks at the simulator's inside
(where the medkits are), because a recording must contain what a person would do. Angles are
degrees, 0 is east, counterclockwise; a bearing is positive to the left.
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
from collections.abc import Sequence
from typing import Any, ClassVar

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


def make_health_gathering(frame_skip: int = 2, resolution: str = "RES_512X384") -> Any:
    """``VizdoomHealthGathering-MultiBinary-v1`` without HUD and weapon, with more buttons.

    Buttons: forward, backward, strafe left, strafe right (binary) and degrees turned to the right
    per tic (continuous). The picture is rendered large and averaged down by the recorder.
    """
    return make_game(frame_skip, resolution)


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


class WanderAndGather:
    """Sticky random commands, and in a share of the chunks the command that leads to a medkit."""

    weights: ClassVar[dict[str, float]] = {
        "stand still": 0.06,
        "turn left": 0.14,
        "turn right": 0.14,
        "walk forward": 0.2,
        "walk forward while turning left": 0.11,
        "walk forward while turning right": 0.11,
        "walk backward": 0.09,
        "strafe left": 0.075,
        "strafe right": 0.075,
    }
    stay = 0.45

    def __init__(self, env: Any, commands: list[str], rng: np.random.Generator) -> None:
        unknown = set(commands) - set(self.weights)
        if unknown:
            raise ValueError(f"commands {sorted(unknown)} are not known to WanderAndGather")
        self.env, self.rng, self.commands = env, rng, commands
        total = np.array([self.weights[c] for c in commands])
        self.share = total / total.sum()
        self.gather, self.held = 0.0, commands[0]

    def reset(self) -> None:
        self.gather = float(self.rng.choice([0.0, 0.5, 0.85], p=[0.4, 0.35, 0.25]))
        self.held = self._draw()

    def _draw(self) -> str:
        return str(self.rng.choice(self.commands, p=self.share))

    def command(self) -> str:
        if self.rng.random() < self.gather:
            self.held = self._to_medkit() or self._draw()
        elif self.rng.random() > self.stay:
            self.held = self._draw()
        return self.held

    def _to_medkit(self) -> str | None:
        if (where := pose(self.env)) is None:
            return None
        if (place := nearest_medkit(self.env, *where)) is None:
            return None
        off = bearing(*where, place)
        side = "left" if off > 0 else "right"
        if abs(off) > 45:
            return f"turn {side}"
        return "walk forward" if abs(off) < 11 else f"walk forward while turning {side}"
