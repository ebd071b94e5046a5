"""The simulator behind the world `courtyard`: ViZDoom in our own map, goals, and who records it.

The environment is an ordinary Gymnasium one. Goals ("go to the white pillar") are controllers: they
see the simulator's inside and choose the action of every step, as a person with eyes would.
"""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from magi_world.training.simulators.courtyard_map import PILLARS, SIZE, WALLS, courtyard_wad
from magi_world.training.simulators.panorama import panorama
from magi_world.training.simulators.steady import PUSHES, STRENGTH, steady
from magi_world.training.simulators.vizdoom import bearing, make_game, nearest_medkit, pose

REACH = 28.0  # closer than this to a wall the player cannot come, nearly
SIDE = 320  # pixels of the picture that the recorder averages down to 64


def map_file(version: int) -> Path:
    """The courtyard's WAD, written once for its content to the system's temporary folder."""
    import vizdoom

    script = Path(vizdoom.scenarios_path) / "health_gathering.wad"
    data = courtyard_wad(script, STRENGTH, version)
    name = f"courtyard-{hashlib.blake2b(data, digest_size=8).hexdigest()}.wad"
    path = Path(tempfile.gettempdir()) / f"magi-world-{os.getuid()}" / name
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(data)
        os.replace(part, path)
    return path


def make_courtyard(frame_skip: int = 2, resolution: str = "RES_512X384", version: int = 1) -> Any:
    """ViZDoom's health_gathering in the courtyard, without HUD and weapon.

    Actions: forward, backward, strafe left, strafe right (binary) and degrees turned to the right
    per tic (continuous). What is held moves at once, and what is let go stops at once (`steady`);
    the picture is bent onto a cylinder (`panorama`) and averaged down by the recorder.

    Args:
        version: 0 is what the courtyard's first weights were recorded in: the game's own inertia
            (24 tics to walk or to stand), its flat picture, a finer floor, smaller medkits.

    Raises:
        ValueError: there is no such version.
    """
    if version not in (0, 1):
        raise ValueError(f"make_courtyard's version is {version!r}; it must be 0 or 1")
    if version == 0:
        return make_game(frame_skip, resolution, str(map_file(version)))
    game = make_game(frame_skip, resolution, str(map_file(version)), PUSHES)
    return panorama(steady(game, frame_skip), "screen", SIDE)


def action(forward: float = 0, turn: float = 0.0) -> dict[str, list[float]]:
    """An action of the environment: walk or not, and turn left by ``turn`` degrees a tic."""
    return {"binary": [int(forward > 0), 0, 0, 0], "continuous": [-turn]}


def around(x: float, y: float, goal: tuple[float, float], spare: str = "") -> tuple[float, float]:
    """``goal``, or a point beside the pillar (not ``spare``) that stands in the way there."""
    for pillar in PILLARS:
        radius = pillar.half * 1.45 + 34
        dx, dy = goal[0] - x, goal[1] - y
        length = math.hypot(dx, dy)
        if pillar.name == spare or length < 1:
            continue
        px, py = pillar.centre[0] - x, pillar.centre[1] - y
        along = (px * dx + py * dy) / length
        aside = (dx * py - dy * px) / length  # positive: the pillar is to the left of the way
        if 0 < along < length and abs(aside) < radius:
            shift = -math.copysign(radius + 10, aside)
            return (
                pillar.centre[0] - dy / length * shift,
                pillar.centre[1] + dx / length * shift,
            )
    return goal


class GoTo:
    """Goal: turn to a named thing, walk there, stop in front of it.

    Args:
        env: the courtyard.
        target: 'red wall', 'white pillar' ... of the map, or 'medkit': the one that is nearest,
            counting turning as walking.
        turn, slow: degrees a tic, far from the goal's direction and near it. Take speeds whose
            shifts of the picture are whole latent cells a chunk: they are easier to foresee.
        still: degrees off at which it is good enough.
    """

    near: ClassVar[dict[str, float]] = {"wall": 300.0, "pillar": 210.0}

    def __init__(
        self, env: Any, target: str, turn: float = 2.25, slow: float = 1.125, still: float = 2.25
    ) -> None:
        self.env, self.target = env, target
        self.turn, self.slow, self.still = turn, slow, still
        known = [t.name for t in (*WALLS, *PILLARS)] + ["medkit"]
        if target not in known:
            raise ValueError(f"GoTo.target is {target!r}; it must be one of {known}")
        self.chosen: tuple[float, float] | None = None

    def begin(self) -> None:
        """The goal is new: look for it afresh."""
        self.chosen = None

    def action(self) -> dict[str, list[float]]:
        where = pose(self.env)
        if where is None:
            return action()
        x, y, angle = where
        goal = self._place(x, y, angle)
        if goal is None:
            return action(turn=self.slow)  # none is there: look around
        left = self._distance(x, y, goal)
        first = around(x, y, goal, self.target)
        off = bearing(x, y, angle, first)
        if self.target == "medkit":
            far = True
        else:
            kind = self.target.split()[-1]
            far = left > self.near[kind]
            if not far and kind == "wall":  # face it squarely
                wall = next(w for w in WALLS if w.name == self.target)
                off = bearing(x, y, angle, (x + wall.normal[0], y + wall.normal[1]))
        speed = self.slow if abs(off) < 4 * self.turn else self.turn
        turn = 0.0 if abs(off) < self.still else speed
        return action(forward=far and abs(off) < 40, turn=math.copysign(turn, off))

    def arrived(self) -> bool:
        """Whether there is nothing left to do (never, for medkits)."""
        where = pose(self.env)
        if where is None or self.target == "medkit":
            return False
        did = self.action()
        return did["binary"][0] == 0 and did["continuous"][0] == 0

    def _place(self, x: float, y: float, angle: float) -> tuple[float, float] | None:
        if self.target == "medkit":
            self.chosen = nearest_medkit(self.env, x, y, angle, self.chosen)
            return self.chosen
        for pillar in PILLARS:
            if pillar.name == self.target:
                return pillar.centre
        wall = next(w for w in WALLS if w.name == self.target)
        edge = {1: SIZE, -1: 0.0}
        # Straight ahead towards the wall, but never into a corner.
        if wall.normal[0]:
            return edge[wall.normal[0]], min(max(y, 300.0), SIZE - 300.0)
        return min(max(x, 300.0), SIZE - 300.0), edge[wall.normal[1]]

    def _distance(self, x: float, y: float, goal: tuple[float, float]) -> float:
        if "wall" in self.target:
            wall = next(w for w in WALLS if w.name == self.target)
            return abs(goal[0] - x) if wall.normal[0] else abs(goal[1] - y)
        return math.hypot(goal[0] - x, goal[1] - y)


class TurnAround:
    """Half a turn in ``tics`` simulator tics, and on for as long as it is held."""

    def __init__(self, env: Any, tics: int) -> None:
        self.turn = 180.0 / tics

    def begin(self) -> None:
        """Nothing to remember."""

    def action(self) -> dict[str, list[float]]:
        return action(turn=self.turn)


class Stroller:
    """Who records the courtyard: sticky moves, goals that are followed to their end, now and then
    another light; in a share of the episodes medkits above all, because they keep one alive."""

    moves: ClassVar[dict[str, float]] = {
        "stand still": 0.08,
        "turn left": 0.15,
        "turn right": 0.15,
        "walk forward": 0.17,
        "walk forward while turning left": 0.10,
        "walk forward while turning right": 0.10,
        "walk backward": 0.09,
        "strafe left": 0.08,
        "strafe right": 0.08,
    }
    stay = 0.45  # chance that a move is held for another sixteen tics
    longest = 12  # times sixteen tics of one goal

    def __init__(
        self,
        env: Any,
        commands: list[str],
        rng: np.random.Generator,
        pace: int = 1,
        around: int = 1,
        seekers: dict[str, float] | None = None,
    ) -> None:
        """``pace``: chunks in sixteen tics; ``around``: chunks that "turn around" takes;
        ``seekers``: the speeds of the goals' `GoTo`, as in ``record.actions``."""
        for name, chunks in {"pace": pace, "around": around}.items():
            if chunks < 1:
                raise ValueError(f"policy_options.{name} is {chunks}; it must be 1 or more")
        self.env, self.rng, self.pace, self.around = env, rng, pace, around
        self.names = [c for c in commands if c in self.moves]
        share = np.array([self.moves[c] for c in self.names])
        self.share = share / share.sum()
        self.lights = [c for c in commands if c.startswith("make it ")]
        self.goals = [c for c in commands if c.startswith("go to ") and "medkit" not in c]
        self.rest = [c for c in ("turn around",) if c in commands]
        known = {*self.names, *self.lights, *self.goals, *self.rest, "go to the medkit"}
        if unknown := set(commands) - known:
            raise ValueError(f"commands {sorted(unknown)} are not known to Stroller")
        self.medkits = "go to the medkit" in commands
        self.seekers = {
            g: GoTo(env, g.removeprefix("go to the "), **(seekers or {})) for g in self.goals
        }
        self.held, self.left, self.keen, self.dark = "", 0, 0.0, False

    def reset(self) -> None:
        self.keen = float(self.rng.choice([0.04, 0.15, 0.45], p=[0.35, 0.35, 0.3]))
        self.held, self.left = "", 0

    def command(self) -> str:
        goal = self.held in self.goals
        if self.left > 0 and not (goal and self.seekers[self.held].arrived()):
            self.left -= 1
            return self.held
        if goal and self.left > 1:
            self.left = int(self.rng.integers(0, 2 * self.pace))  # stay in front of it for a moment
            return self.held
        self.held, self.left = self._draw()
        return self.held

    def _draw(self) -> tuple[str, int]:
        u = self.rng.random()
        if self.lights and u < 0.09:
            return str(self.rng.choice(self.lights)), 0
        if self.rest and u < 0.15:
            return self.rest[0], self.around - 1
        if self.medkits and self.rng.random() < self.keen:
            return "go to the medkit", int(self.rng.integers(self.pace, 6 * self.pace))
        if self.goals and self.rng.random() < 0.14:
            return str(self.rng.choice(self.goals)), self.longest * self.pace
        more = int(self.rng.geometric((1 - self.stay) / self.pace)) - 1
        return str(self.rng.choice(self.names, p=self.share)), more
