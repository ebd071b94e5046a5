"""The courtyard: its map is what ViZDoom plays, goals are reached, the recorder names them."""

from __future__ import annotations

import io
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from magi_world.training.simulators.courtyard_map import (
    PILLARS,
    WALLS,
    courtyard_wad,
    read_wad,
    text_map,
    textures,
    wad_bytes,
)

vizdoom = pytest.importorskip("vizdoom")

from magi_world.simulator import as_action  # noqa: E402
from magi_world.training.simulators.courtyard import (  # noqa: E402
    GoTo,
    Stroller,
    TurnAround,
    make_courtyard,
    pose,
)
from magi_world.training.simulators.steady import (  # noqa: E402
    FRICTION,
    push_for,
    velocity_after,
)


def test_the_file_holds_map_script_and_textures(tmp_path: Path) -> None:
    script = Path(vizdoom.scenarios_path) / "health_gathering.wad"
    path = tmp_path / "own.wad"
    path.write_bytes(courtyard_wad(script, 4))
    lumps = dict(read_wad(path))
    assert lumps["BEHAVIOR"] == dict(read_wad(script))["BEHAVIOR"]
    for name in textures():
        assert Image.open(io.BytesIO(lumps[name])).size[1] in (128, 160, 256)
    assert text_map().count("linedef") == 12 + 4 * len(PILLARS)
    again = tmp_path / "again.wad"
    again.write_bytes(wad_bytes(read_wad(path)))
    assert read_wad(again) == read_wad(path)
    first = tmp_path / "first.wad"
    first.write_bytes(courtyard_wad(script, 4, version=0))
    added = lumps.keys() - dict(read_wad(first)).keys()
    assert added == {"DECORATE", "KEYCONF"}
    assert b"LargeMedikit" in lumps["DECORATE"]
    (tmp_path / "not.wad").write_bytes(b"something else")
    with pytest.raises(ValueError, match="not a WAD"):
        read_wad(tmp_path / "not.wad")


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = make_courtyard(resolution="RES_160X120")
    yield made
    made.close()


def held(env: Any, controller: Any, steps: int) -> np.ndarray:
    controller.begin()
    for _ in range(steps):
        seen, _, ended, cut, _ = env.step(as_action(env.action_space, controller.action()))
        assert not ended
        assert not cut
    return seen["screen"]


def colour_share(picture: np.ndarray, colour: tuple[int, int, int]) -> float:
    """Share of pixels that are of ``colour`` rather than of another wall or the floor."""
    known = [*(w.colour for w in WALLS), (150, 116, 84), (126, 96, 70), (160, 200, 240)]
    hues = np.array([np.array(c) / np.linalg.norm(c) for c in known])
    nearest = (picture.astype(float) @ hues.T).argmax(-1)
    return float((nearest == [w.colour for w in WALLS].index(colour)).mean())


@pytest.mark.parametrize("wall", WALLS, ids=lambda w: w.name)
def test_a_wall_is_reached_and_fills_the_middle_but_not_the_picture(env: Any, wall: Any) -> None:
    env.reset(seed=1)
    goal = GoTo(env, wall.name)
    picture = held(env, goal, 90)
    assert goal.arrived()
    assert 0.2 < colour_share(picture, wall.colour) < 0.7
    others = [colour_share(picture, w.colour) for w in WALLS if w is not wall]
    assert max(others) < 0.15


def test_goals_may_turn_by_whole_cells_only() -> None:
    env = make_courtyard(frame_skip=3, resolution="RES_160X120")
    env.reset(seed=1)
    goal = GoTo(env, "white pillar", turn=3.0, slow=3.0, still=4.6)
    looks = [(pose(env) or (0, 0, 0))[2]]
    for _ in range(60):
        held(env, goal, 1)
        looks.append((pose(env) or (0, 0, 0))[2])
    turned = (np.diff(looks) + 180) % 360 - 180
    assert goal.arrived()
    assert np.minimum(abs(turned), abs(abs(turned) - 9)).max() < 0.2
    assert (abs(turned) > 8).sum() >= 2
    env.close()


@pytest.mark.parametrize("pillar", PILLARS, ids=lambda p: p.name)
def test_a_pillar_is_reached(env: Any, pillar: Any) -> None:
    env.reset(seed=2)
    goal = GoTo(env, pillar.name)
    held(env, goal, 90)
    x, y, _ = pose(env) or (0, 0, 0)
    assert goal.arrived()
    assert 90 < math.hypot(pillar.centre[0] - x, pillar.centre[1] - y) < 250


def test_medkits_are_collected(env: Any) -> None:
    env.reset(seed=3)
    goal = GoTo(env, "medkit")
    goal.begin()
    health = []
    for _ in range(200):
        seen, _, _, _, _ = env.step(as_action(env.action_space, goal.action()))
        health.append(float(seen["gamevariables"][0]))
    assert (np.diff(health) > 0).sum() >= 2


def test_turning_around_is_half_a_turn_in_its_tics(env: Any) -> None:
    env.reset(seed=4)
    before = (pose(env) or (0, 0, 0))[2]
    held(env, TurnAround(env, tics=32), 16)
    after = (pose(env) or (0, 0, 0))[2]
    assert abs((after - before) % 360 - 180) < 1


def ways(env: Any, moves: list[int], turn: float, steps: int) -> np.ndarray:
    """How far forward and to the right (steps, 2) the player comes in every step."""
    out = []
    for _ in range(steps):
        x, y, angle = pose(env) or (0, 0, 0)
        env.step(as_action(env.action_space, {"binary": moves, "continuous": [turn]}))
        then = pose(env) or (0, 0, 0)
        towards = math.radians(angle - 1.5 * turn)
        dx, dy = then[0] - x, then[1] - y
        out.append(
            (
                dx * math.cos(towards) + dy * math.sin(towards),
                dx * math.sin(towards) - dy * math.cos(towards),
            )
        )
    return np.array(out)


def test_what_is_held_moves_at_once_and_what_is_let_go_stops_at_once(env: Any) -> None:
    env.reset(seed=5)
    ways(env, [0, 0, 0, 0], 0, 2)
    for moves, turn, way in (
        ([1, 0, 0, 0], 0.0, (10, 0)),
        ([0, 0, 0, 0], 0.0, (0, 0)),
        ([0, 0, 1, 0], 0.0, (0, -8)),
        ([0, 0, 0, 1], 0.0, (0, 8)),
        ([0, 1, 0, 0], 0.0, (-8, 0)),
        ([1, 0, 0, 0], -1.25, (10, 0)),
        ([0, 0, 0, 0], 2.0, (0, 0)),
    ):
        assert np.abs(ways(env, moves, turn, 4) - way).max() < 0.6, (moves, turn)
    env.reset(seed=5)
    ways(env, [1, 0, 0, 0], 0, 90)  # against the wall
    assert np.abs(ways(env, [1, 0, 0, 0], 0, 4)[:, 0]).max() < 0.5
    assert np.abs(ways(env, [0, 0, 0, 0], 0, 4)).max() < 0.6


def test_turning_shifts_the_picture_and_changes_nothing_else(env: Any) -> None:
    env.reset(seed=6)
    env.step(as_action(env.action_space, {"binary": [0, 0, 0, 0], "continuous": [0.0]}))
    seen = []
    for _ in range(2):  # 36 degrees: half of the picture
        for _ in range(8):
            turn = {"binary": [0, 0, 0, 0], "continuous": [-2.25]}
            picture = env.step(as_action(env.action_space, turn))[0]["screen"]
        seen.append(picture.reshape(64, 5, 64, 5, 3).mean((1, 3)))
    before, after = seen
    assert np.abs(after[:, 32:] - before[:, :32]).mean() < 6
    assert np.abs(after - before).mean() > 15


def test_there_are_two_versions() -> None:
    with pytest.raises(ValueError, match="version is 2"):
        make_courtyard(version=2)


def test_the_game_s_own_inertia_and_picture_in_version_0() -> None:
    game = make_courtyard(resolution="RES_160X120", version=0)
    assert game.observation_space["screen"].shape == (120, 160, 3)
    game.reset(seed=5)
    ways(game, [0, 0, 0, 0], 0, 2)
    walked = ways(game, [1, 0, 0, 0], 0, 10)[:, 0]
    assert walked[0] < 0.3 * walked[-1]
    assert ways(game, [0, 0, 0, 0], 0, 4)[-1, 0] > 0.4 * walked[-1]
    game.close()


def test_a_push_is_worked_out_from_the_way() -> None:
    velocity, tics = np.array([1.5, -0.5]), 3
    way = np.array([4.0, 2.0])
    push = push_for(velocity, way, tics)
    place, moving = np.zeros(2), velocity.copy()
    for _ in range(tics):
        moving = moving + push
        place, moving = place + moving, moving * FRICTION
    np.testing.assert_allclose(place, way)
    np.testing.assert_allclose(velocity_after(velocity, push, way, tics), moving)
    barred = velocity_after(velocity, push, np.array([0.0, 2.0]), tics)
    np.testing.assert_allclose(barred, [0.0, moving[1]])


def mean_run(said: list[str]) -> float:
    return len(said) / len(list(itertools.groupby(said)))


def test_the_stroller_does_all_of_it() -> None:
    class Nowhere:
        class unwrapped:
            state = None

    commands = [*Stroller.moves, "go to the red wall", "go to the medkit", "turn around"]
    commands += ["make it night", "make it day"]
    policy = Stroller(Nowhere(), commands, np.random.default_rng(0))
    policy.reset()
    seen = {policy.command() for _ in range(3000)}
    assert seen == set(commands)
    quick = Stroller(Nowhere(), commands, np.random.default_rng(0), pace=2, around=4)
    quick.reset()
    said = [quick.command() for _ in range(3000)]
    assert set(said) == set(commands)
    around = [list(run) for name, run in itertools.groupby(said) if name == "turn around"]
    assert around
    assert all(len(run) % 4 == 0 for run in around)
    assert mean_run(said) > 1.3 * mean_run([policy.command() for _ in range(3000)])
    for option in ("pace", "around"):
        with pytest.raises(ValueError, match=f"{option} is 0"):
            Stroller(Nowhere(), commands, np.random.default_rng(0), **{option: 0})
    exact = {"turn": 3.0, "slow": 3.0, "still": 4.6}
    policy = Stroller(Nowhere(), commands, np.random.default_rng(0), seekers=exact)
    assert [(g.turn, g.slow, g.still) for g in policy.seekers.values()] == [(3.0, 3.0, 4.6)]
    with pytest.raises(ValueError, match="dance"):
        Stroller(Nowhere(), ["dance"], np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"target is 'tower'"):
        GoTo(Nowhere(), "tower")


def test_the_game_leaves_nothing_where_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        game = make_courtyard(resolution="RES_160X120")
        game.reset(seed=1)
        game.step(game.action_space.sample())
        game.close()
    assert list(tmp_path.iterdir()) == []
