"""The simulator behind the world `crafter`: the game with its picture upright and always by day.

Crafter (Hafner 2021, MIT) shows 9 columns and 7 rows of tiles and two rows of inventory below. At
72x72 pixels a tile is exactly 8x8: one latent cell. Its rules are the game's own; only the night is
not: it is always day, without darkness and its noise, and zombies come now and then instead. Goals
are controllers that see the game's map.

Directions are (dx, dy), y grows downwards; places are (x, y) of the map of 64x64 tiles.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

SIDE = 72
TILE = 8
ROWS, COLUMNS = 7, 9  # of the map in the picture; the inventory is below
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
WALKABLE = ("grass", "sand", "path")  # what one may walk on and live
ZOMBIES, SPELL = 0.12, 250  # share of the time with zombies; steps from one such time to the next
REACH = 40  # steps that a goal may be away
NOOP, DO = 0, 5  # actions of the game; 1 to 4 go left, right, up and down
CREATURES = ("cow", "zombie")
MATERIALS = ("tree", "water", "stone", "coal", "iron", "table", "grass", "sand")


def _package() -> Any:
    try:
        import crafter
    except ModuleNotFoundError as error:
        raise ImportError(
            "the world crafter needs the game: pip install 'magi-world[crafter]'"
        ) from error
    return crafter


class CrafterEnv(gymnasium.Env[Any, Any]):
    """Crafter for Gymnasium.

    Action: one of the game's 17, by number. Observation: ``screen`` uint8 (72, 72, 3), and
    ``counts`` float32 (38,), the 16 numbers of the inventory (health, food, drink, energy, sapling,
    wood ...) and how often each of the 22 achievements was reached. Reward: the game's, 1 for an
    achievement's first time and a tenth of every change of health. End: death; truncated after
    ``length`` steps. ``copy.deepcopy`` gives a game that goes on from the same moment.

    zombies: share of the time, in spells of thirty steps or so, in which zombies come, one for
    every field of grass; None: by night, as in the game, and many. The picture is always that of
    the day.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}  # noqa: RUF012
    render_mode = "rgb_array"

    def __init__(self, length: int = 10_000, zombies: float | None = ZOMBIES) -> None:
        """Raises:
        ImportError: the game is not installed.
        ValueError: zombies is not between 0 and 1.
        """
        if zombies is not None and not 0 <= zombies <= 1:
            raise ValueError(f"zombies is {zombies}; it must be from 0 to 1, or None")
        package = _package()
        self.length = length
        self.game = package.Env(size=(SIDE, SIDE), length=length, seed=0)
        self.action_names = tuple(package.constants.actions)
        self.names = (*package.constants.items, *package.constants.achievements)
        self.game._local_view._light = lambda canvas, daylight: canvas
        if zombies is not None:
            self.zombies = zombies
            self.game._update_time = self._update_time
        # Bound methods, not lambdas: those of a copy (`copy.deepcopy`) are the copy's.
        self._balance, self.game._balance_chunk = self.game._balance_chunk, self._balance_in_order
        box = gymnasium.spaces.Box
        self.action_space = gymnasium.spaces.Discrete(len(self.action_names))
        self.observation_space = gymnasium.spaces.Dict(
            {
                "screen": box(0, 255, (SIDE, SIDE, 3), np.uint8),
                "counts": box(0, np.inf, (len(self.names),), np.float32),
            }
        )

    def _update_time(self) -> None:
        """How light it is for the creatures: 0.8 is enough to keep all zombies away but one."""
        spell = self.game._step % SPELL < self.zombies * SPELL
        self.game._world.daylight = 0.8 if spell else 1.0

    def _balance_in_order(self, chunk: Any, there: Any) -> None:
        """The game draws one creature of a set, whose order is that of addresses in memory."""
        self._balance(chunk, sorted(there, key=lambda thing: tuple(thing.pos)))

    @property
    def player(self) -> Any:
        """Who plays, with ``pos``, ``facing``, ``inventory``, ``achievements``, ``sleeping``."""
        return self.game._player

    @property
    def world(self) -> Any:
        """The map: ``world[x, y]`` is (material, creature or None)."""
        return self.game._world

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        self.game._seed = int(self.np_random.integers(2**31 - 1))
        self.game._episode = 0
        return self._see(self.game.reset()), {}

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        picture, reward, over, _ = self.game.step(int(action))
        dead = self.player.health <= 0
        return self._see(picture), float(reward), dead, bool(over and not dead), {}

    def render(self) -> np.ndarray:
        return self.game.render()

    def _see(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        counts = [*self.player.inventory.values(), *self.player.achievements.values()]
        return {"screen": picture, "counts": np.array(counts, np.float32)}


def places_of(env: CrafterEnv, target: str) -> np.ndarray:
    """Bool (64, 64): where a material or a kind of creature is.

    Raises:
        ValueError: no such thing.
    """
    world = env.world
    if target in MATERIALS:
        return world._mat_map == world._mat_ids[target]
    if target not in CREATURES:
        raise ValueError(f"GoTo.target is {target!r}; it must be in {(*MATERIALS, *CREATURES)}")
    found = np.zeros(world.area, bool)
    for thing in world.objects:
        if type(thing).__name__.lower() == target:
            found[tuple(thing.pos)] = True
    return found


def way_to(
    env: CrafterEnv, there: np.ndarray, reach: int = REACH, corners: bool = False
) -> list[tuple[int, int]] | None:
    """The shortest walk to a tile beside one of ``there``, then the turn towards it.

    Args:
        corners: a tile at its corner will do, without a turn: a table is used from there as well.

    Returns:
        Directions, the last one blocked by what was looked for; [] where there is nothing to do;
        None where nothing can be reached in ``reach`` steps.
    """
    world, player = env.world, env.player
    free = np.isin(world._mat_map, [world._mat_ids[m] for m in WALKABLE]) & (world._obj_map == 0)
    free, wanted = np.pad(free, 1), np.pad(there, 1)
    beside = np.zeros_like(wanted)
    around = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)] if corners else [*WAYS.values()]
    for shift in around:
        beside |= np.roll(wanted, shift, (0, 1))
    start = (int(player.pos[0]) + 1, int(player.pos[1]) + 1)
    came: dict[tuple[int, int], tuple[int, int] | None] = {start: None}
    todo, far = deque([(start, 0)]), 0
    while todo:
        place, far = todo.popleft()
        if beside[place]:
            break
        if far == reach:
            return None
        for way in WAYS.values():
            new = (place[0] + way[0], place[1] + way[1])
            if new not in came and free[new]:
                came[new] = way
                todo.append((new, far + 1))
    else:
        return None
    turn = [] if corners else [w for w in WAYS.values() if wanted[place[0] + w[0], place[1] + w[1]]]
    steps: list[tuple[int, int]] = []
    while (back := came[place]) is not None:
        steps.append(back)
        place = (place[0] - back[0], place[1] - back[1])
    last = steps[0] if steps else tuple(int(f) for f in player.facing)
    steps.reverse()
    return steps if corners or last in turn else [*steps, turn[0]]


class GoTo:
    """Goal: walk to the nearest of something and face it; stand still where there is none.

    Args:
        target: a material, such as tree or table (whose corner will do), or cow or zombie.
        fight: strike when it is in front.
    """

    def __init__(self, env: Any, target: str, fight: bool = False) -> None:
        self.env: CrafterEnv = env.unwrapped
        self.target, self.fight = target, fight
        if target not in (*MATERIALS, *CREATURES):
            places_of(self.env, target)

    def begin(self) -> None:
        """Nothing to remember: the way is looked for at every step, as creatures move."""

    def way(self) -> list[tuple[int, int]] | None:
        """What is left of the way, as `way_to` says it."""
        there = places_of(self.env, self.target)
        return way_to(self.env, there, corners=self.target == "table") if there.any() else None

    def action(self) -> int:
        way = self.way()
        if way:
            return 1 + list(WAYS.values()).index(way[0])
        return DO if self.fight and way == [] else NOOP


class Settler:
    """Who records crafter: walks about, lives, and builds up to stone tools and now and then iron.

    A command is held for one step of the game; what takes longer is said again. In every episode
    the share of idle strolling is another one. What is needed most comes first: a zombie beside,
    drink, food, rest (in a tunnel of its own if there is a pickaxe, because a zombie kills a
    sleeper); then the next tool, and what it is made of.
    """

    def __init__(self, env: Any, commands: Sequence[str], rng: np.random.Generator) -> None:
        self.env: CrafterEnv = env.unwrapped
        self.commands, self.rng = list(commands), rng
        self.seekers = {t: GoTo(env, t) for t in (*MATERIALS, *CREATURES)}
        needed = {f"go {w}" for w in WAYS} | {"act", "sleep", "wait", "fight the zombie"}
        if lacking := sorted(needed - set(commands)):
            raise ValueError(f"Settler needs the commands {lacking} too")
        self.plan: list[str] = []
        self.idle, self.heading = 0.0, "left"
        # Every command occurs in every recording, however short; who sleeps does not hear.
        rest = [c for c in commands if c != "sleep"]
        self.tour = ["sleep", *(str(c) for c in rng.permutation(rest))]

    def reset(self) -> None:
        self.idle = float(self.rng.choice([0.15, 0.4, 0.7], p=[0.45, 0.3, 0.25]))
        self.plan, self.heading = [], str(self.rng.choice(list(WAYS)))

    def command(self) -> str:
        player = self.env.player
        if self.tour:
            return self.tour.pop()
        if player.sleeping:
            self.plan = []
            return "sleep" if self.rng.random() < 0.95 else self._any()
        if self._near("zombie", 5) and self.rng.random() < 0.9:
            self.plan = []
            return "fight the zombie"
        if not self.plan:
            self.plan = self._stroll() if self.rng.random() < self.idle else self._need()
        said = self.plan.pop(0)
        if said.startswith("go ") and self._burns(said) and self.rng.random() < 0.99:
            self.plan = []
            return "wait"
        return said

    def _any(self) -> str:
        return str(self.rng.choice(self.commands))

    def _near(self, target: str, steps: int) -> bool:
        pos = self.env.player.pos
        close = (
            slice(max(0, pos[0] - steps), pos[0] + steps + 1),
            slice(max(0, pos[1] - steps), pos[1] + steps + 1),
        )
        if not places_of(self.env, target)[close].any():
            return False
        way = self.seekers[target].way()
        return way is not None and len(way) <= steps

    def _ahead(self, way: tuple[int, int]) -> int:
        """Free tiles straight ahead, at most 5."""
        x, y = self.env.player.pos
        for n in range(1, 6):
            material, thing = self.env.world[x + n * way[0], y + n * way[1]]
            if material not in WALKABLE or thing is not None:
                return n - 1
        return 5

    def _burns(self, said: str) -> bool:
        """Whether a walk leads into lava."""
        if (way := WAYS.get(said.removeprefix("go "))) is None:
            return False
        x, y = self.env.player.pos
        return self.env.world[x + way[0], y + way[1]][0] == "lava"

    def _stroll(self) -> list[str]:
        u = self.rng.random()
        long = int(self.rng.geometric(0.25))
        if u < 0.25:
            return [self._any()]
        if u < 0.30:
            return ["wait"] * min(long, 3)
        if u < 0.38:
            return ["act"]
        return [f"go {self.rng.choice(list(WAYS))}"] * long

    def _explore(self) -> list[str]:
        """Go on in the present heading, or in another one where that is blocked."""
        if self._ahead(WAYS[self.heading]) < 2 or self.rng.random() < 0.15:
            open_ways = [w for w, d in WAYS.items() if self._ahead(d) >= 2]
            self.heading = str(self.rng.choice(open_ways or list(WAYS)))
        # What stands in the way can be cut through.
        ahead = self._ahead(WAYS[self.heading])
        return [f"go {self.heading}"] * min(ahead, 3) if ahead else [f"go {self.heading}", "act"]

    def _get(self, target: str) -> list[str]:
        """Collect or strike the nearest of something, or look for one."""
        way = self.seekers[target].way()
        if way is None:
            return self._explore()
        if way == []:
            return ["act"]
        name = f"go to the {target}" if target == "table" else f"go to the nearest {target}"
        if name not in self.commands:  # a zombie
            return ["fight the zombie"]
        # What walks away is looked for anew.
        return [name] * min(len(way), 4)

    def _faces(self, *materials: str) -> bool:
        player = self.env.player
        material, thing = self.env.world[tuple(player.pos + np.array(player.facing))]
        return thing is None and material in materials

    def _at(self, *materials: str) -> bool:
        nearby, _ = self.env.world.nearby(self.env.player.pos, 1)
        return all(m in nearby for m in materials)

    def _place(self, what: str) -> list[str]:
        """Put something down in front, after a step that ends before a free tile."""
        if self._faces(*WALKABLE):
            return [f"place a {what}"]
        wide = [w for w, d in WAYS.items() if self._ahead(d) >= 2]
        return [f"go {self.rng.choice(wide)}"] if wide else self._explore()

    def _need(self) -> list[str]:
        """The next few commands that serve a purpose."""
        have = self.env.player.inventory
        u = self.rng.random()
        if have["energy"] < 4:
            return self._rest(have)
        if have["drink"] < 5 or (have["drink"] < 7 and u < 0.04):
            return self._get("water")
        if have["food"] < 5 or (have["food"] < 7 and u < 0.07):
            return self._get("cow")
        if have["sapling"] and self._faces("grass") and u < 0.5:
            return ["place a plant"]
        if not have["sapling"] and self._faces("grass") and u < 0.12:
            return ["act"] * 4
        if have["stone"] and u < 0.17:
            return ["place a stone"]
        if have["stone"] > 4 and u < 0.5 and self._faces(*WALKABLE) and not self._at("furnace"):
            return ["place a furnace"]
        if have["wood_pickaxe"] and have["stone"] < 6 and u < 0.35:
            return self._get("stone")
        return self._tool(have)

    def _rest(self, have: dict[str, int]) -> list[str]:
        """Sleep; before that dig into a mountain that is near, round a corner."""
        land = places_of(self.env, "grass") | places_of(self.env, "sand")
        mountain = places_of(self.env, "stone")
        if way_to(self.env, land, reach=4) is None or way_to(self.env, mountain, reach=16) is None:
            return ["sleep"]
        if not have["wood_pickaxe"] or have["energy"] < 2:
            return ["sleep"]
        pos = self.env.player.pos
        walls = [w for w, d in WAYS.items() if mountain[tuple((pos + np.array(d)) % 64)]]
        aside = [w for w in walls if WAYS[w] != tuple(self.env.player.facing)] or walls
        if not aside:
            return self._get("stone")
        way = str(self.rng.choice(aside))
        return [f"go {way}", "act", f"go {way}"]

    def _tool(self, have: dict[str, int]) -> list[str]:
        """Towards the next tool; once all that is within reach is made, about its materials."""
        beside_wood = {"wood": (), "stone": ("stone",), "iron": ("coal", "iron")}
        for kind, extra in beside_wood.items():
            for tool in ("pickaxe", "sword"):
                if have[f"{kind}_{tool}"]:
                    continue
                if lacking := [m for m in extra if not have[m]]:
                    return self._get(lacking[0])
                if have["wood"] < 1:
                    return self._get("tree")
                return self._make(f"{kind} {tool}", have, kind == "iron")
        return self._get(str(self.rng.choice(["tree", "stone", "coal", "water", "cow"])))

    def _make(self, tool: str, have: dict[str, int], furnace: bool) -> list[str]:
        """Make a tool, at a table that is here, near, or new."""
        article = "an" if tool.startswith("iron") else "a"
        if self._at("table", "furnace") if furnace else self._at("table"):
            return [f"make {article} {tool}"]
        if furnace and have["stone"] < 4:
            return self._get("stone")
        if furnace and self._at("table"):
            return self._furnace()
        if self._near("table", 12):
            return ["go to the table"] * len(self.seekers["table"].way() or [0])
        if have["wood"] < 4:
            return self._get("tree")
        return self._place("table")

    def _furnace(self) -> list[str]:
        """Beside a table: put a furnace on a free tile in front, or on one that is cut free."""
        if self._faces(*WALKABLE):
            return ["place a furnace"]
        for name, way in WAYS.items():
            x, y = self.env.player.pos + np.array(way)
            if self.env.world[x, y] == ("stone", None):
                return [f"go {name}", "act", "place a furnace"]
        wide = [w for w, d in WAYS.items() if self._ahead(d) >= 2]
        step = [f"go {self.rng.choice(wide)}"] if wide else self._explore()
        return [*step, "go to the table"]
