"""The simulator of the world `crafter`: its picture, its goals, who records it, its figures."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from magi_world.simulator import ChunkSimulator, RecordConfig
from magi_world.training import rollout
from magi_world.training.collect import record_shard
from magi_world.training.data import ChunkDataset
from magi_world.training.policies import make_policy
from magi_world.training.preflight import missing_packages
from magi_world.training.rollout import EvaluateConfig, filled, history_of
from magi_world.training.settings import WorldTrainConfig, read_settings
from magi_world.training.simulators import crafter_figures
from magi_world.training.simulators.crafter import (
    TILE,
    WAYS,
    CrafterEnv,
    GoTo,
    places_of,
    way_to,
)

PAGE = Path(__file__).parents[2] / "configs" / "crafter.yaml"


@pytest.fixture(scope="module")
def page() -> WorldTrainConfig:
    return read_settings(PAGE)


def test_every_command_can_be_said_in_many_ways(page: WorldTrainConfig) -> None:
    for name, command in page.commands.items():
        assert len(command.phrases) >= 20, name
        assert len(command.held_out) == 6, name


def test_without_the_game_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, page: WorldTrainConfig
) -> None:
    monkeypatch.setitem(sys.modules, "crafter", None)
    with pytest.raises(ImportError, match=r"pip install 'magi-world\[crafter\]'"):
        ChunkSimulator(page.record)
    assert not [f for f in missing_packages(page) if "crafter" in f.text]  # it is told once


@pytest.fixture(scope="module")
def env() -> CrafterEnv:
    pytest.importorskip("crafter")
    return CrafterEnv()


def picture_of_map(env: CrafterEnv) -> dict[tuple[int, int], np.ndarray]:
    """(row, column) -> the tile that the game's own map and pictures say; without creatures."""
    found = {}
    for row in range(7):
        for column in range(9):
            place = env.player.pos + np.array([column - 4, row - 3])
            material, thing = env.world[tuple(place)]
            if material is not None and thing is None:
                # The game keeps its pictures with x first.
                texture = env.game._textures.get(material, (TILE, TILE))
                found[row, column] = texture[..., :3].transpose(1, 0, 2)
    return found


def test_the_picture_is_upright_and_a_tile_is_eight_pixels(env: CrafterEnv) -> None:
    seen, _ = env.reset(seed=3)
    for action in (0, 1, 1, 3, 3):
        seen, *_ = env.step(action)
    picture, true = seen["screen"], picture_of_map(env)
    assert picture.shape == (72, 72, 3)
    assert len(true) > 40
    assert len({t.tobytes() for t in true.values()}) > 1
    for (row, column), tile in true.items():
        shown = picture[row * TILE :, column * TILE :][:TILE, :TILE]
        np.testing.assert_array_equal(shown, tile, f"row {row}, column {column}")
    # The inventory is below: four numbers at the left of its first row, nothing in its second.
    below = picture[7 * TILE :].reshape(2, TILE, 9, TILE, 3).max(axis=(1, 3, 4))
    assert (below[0, :4] > 0).all()
    assert not below[0, 4:].any()
    assert not below[1].any()


def test_it_is_always_day() -> None:
    pytest.importorskip("crafter")
    env = CrafterEnv(zombies=None)
    env.reset(seed=0)
    for _ in range(210):
        env.game._update_time()
        env.game._step += 1
    assert env.world.daylight < 0.2
    for (row, column), tile in picture_of_map(env).items():
        shown = env.render()[row * TILE :, column * TILE :][:TILE, :TILE]
        np.testing.assert_array_equal(shown, tile)
    with pytest.raises(ValueError, match="zombies is 2"):
        CrafterEnv(zombies=2)


def test_a_seed_says_everything(env: CrafterEnv) -> None:
    pytest.importorskip("crafter")
    actions = np.random.default_rng(0).integers(17, size=60).tolist()

    def play(one: CrafterEnv) -> tuple[list[np.ndarray], list[float]]:
        one.reset(seed=11)
        steps = [one.step(a) for a in actions]
        return [s[0]["screen"] for s in steps], [s[1] for s in steps]

    frames, rewards = play(env)
    others, again = play(CrafterEnv())
    np.testing.assert_array_equal(frames, others)
    assert rewards == again


def test_a_copy_goes_on_from_the_same_moment(env: CrafterEnv) -> None:
    pytest.importorskip("crafter")
    env.reset(seed=3)
    for _ in range(20):
        env.step(0)
    other = copy.deepcopy(env)
    actions = np.random.default_rng(1).integers(17, size=40).tolist()
    frames = [env.step(a)[0]["screen"] for a in actions]
    np.testing.assert_array_equal(frames, [other.step(a)[0]["screen"] for a in actions])


def clear(env: CrafterEnv, seed: int = 0) -> tuple[int, int]:
    """A field of grass with nobody else on it; where the player is."""
    env.reset(seed=seed)
    for thing in env.world.objects:
        if thing is not env.player:
            env.world.remove(thing)
    env.world._mat_map[:] = env.world._mat_ids["grass"]
    env.game._balance_chunk = lambda chunk, there: None
    return int(env.player.pos[0]), int(env.player.pos[1])


def test_a_goal_is_walked_to_and_faced() -> None:
    pytest.importorskip("crafter")
    env = CrafterEnv()
    x, y = clear(env)
    env.world[x + 3, y] = "tree"
    for dy in (-1, 0, 1):
        env.world[x + 1, y + dy] = "water"  # a detour
    goal = GoTo(env, "tree")
    assert len(goal.way() or []) == 2 + 3 + 2 - 1
    taken = []
    for _ in range(10):
        taken.append(goal.action())
        env.step(taken[-1])
    assert goal.way() == []
    assert taken[-2:] == [0, 0]
    ahead = env.player.pos + np.array(env.player.facing)
    assert env.world[tuple(ahead)][0] == "tree"
    env.step(5)
    assert env.player.inventory["wood"] == 1
    assert goal.action() == 0  # there is no other one
    with pytest.raises(ValueError, match=r"GoTo\.target is 'castle'"):
        GoTo(env, "castle")


def test_what_cannot_be_reached_is_left_alone() -> None:
    pytest.importorskip("crafter")
    env = CrafterEnv()
    x, y = clear(env)
    env.world[x + 6, y] = "tree"
    there = places_of(env, "tree")
    assert way_to(env, there, reach=4) is None
    assert len(way_to(env, there) or []) == 5
    for way in WAYS.values():
        env.world[x + way[0], y + way[1]] = "lava"
    assert way_to(env, there) is None


def test_a_zombie_is_fought_until_it_is_gone() -> None:
    crafter = pytest.importorskip("crafter")
    env = CrafterEnv()
    x, y = clear(env)
    env.world.add(crafter.objects.Zombie(env.world, (x + 3, y), env.player))
    goal = GoTo(env, "zombie", fight=True)
    for _ in range(40):
        env.step(goal.action())
        if not places_of(env, "zombie").any():
            break
    assert env.player.achievements["defeat_zombie"] == 1


def test_events_are_read_at_their_own_place(env: CrafterEnv, page: WorldTrainConfig) -> None:
    named = {"hurt": "health", "food": "food", "drink": "drink", "wood": "wood"}
    assert len(page.record.events) == 4 + 22
    for name, event in page.record.events.items():
        assert env.names[event.index] == named.get(name, name)
    doing = [n.removeprefix("make ").split(" ", 1) for n in page.record.actions if "make" in n]
    for i, (_, tool) in enumerate(doing):
        assert env.action_names[11 + i] == f"make_{tool.replace(' ', '_')}"


@pytest.fixture(scope="module")
def played(page: WorldTrainConfig, tmp_path_factory: pytest.TempPathFactory) -> ChunkDataset:
    pytest.importorskip("crafter")
    config = small(page.record)
    path = tmp_path_factory.mktemp("crafter") / "shard_0000.safetensors"
    assert record_shard(config, 0, path) == 70
    return ChunkDataset([path])


def small(config: RecordConfig) -> RecordConfig:
    from dataclasses import replace

    return replace(config, chunks=140, chunks_per_shard=70, held_out_shards=1)


def test_who_records_lives_and_collects(played: ChunkDataset, page: WorldTrainConfig) -> None:
    names = list(page.record.events)
    happened = dict(zip(names, (played.events.sum(0) > 0).tolist(), strict=True))
    assert happened["wood"]
    assert happened["collect_wood"]
    assert len(played.command.unique()) == len(page.record.actions)
    assert played.reward.sum() > 0


def test_who_records_needs_the_commands_it_uses(page: WorldTrainConfig) -> None:
    pytest.importorskip("crafter")
    from dataclasses import replace

    lost = {n: a for n, a in page.record.actions.items() if n != "act"}
    config = replace(page.record, actions=lost)
    with pytest.raises(ValueError, match=r"Settler needs the commands \['act'\]"):
        make_policy(config, ChunkSimulator(config), np.random.default_rng(0))


class KnowingWorld:
    """Dreams what really came; or, stubborn, that nothing moves."""

    num_worlds = 4

    def __init__(self, data: ChunkDataset, names: list[str], stubborn: bool = False) -> None:
        self.data, self.stubborn, self.done = data, stubborn, 0
        self.spec = SimpleNamespace(command_names=names)

    def step(self, said: list[str]) -> Any:
        rows = filled(self.rows, self.num_worlds) + history_of(self.data)
        assert said == [self.spec.command_names[c] for c in self.data.command[rows + self.done]]
        shown = self.data.pixels(rows - 1 if self.stubborn else rows + self.done)
        self.done += 1
        return SimpleNamespace(decoded=shown)


def test_figures_know_who_is_right(
    played: ChunkDataset, page: WorldTrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(world: Any, data: ChunkDataset, rows: torch.Tensor, seed: int) -> None:
        world.rows, world.done = rows, 0

    monkeypatch.setattr(rollout, "begin", begin)
    names, config = list(page.commands), EvaluateConfig(clips=6)
    right = crafter_figures.measure(KnowingWorld(played, names), played, config)
    assert right["after_1"]["real_tiles"] == right["after_1"]["right_tiles"] == 1
    assert right["after_1"]["right_tiles_of_a_copy"] < 1
    assert right["walks"]["all"] == 1
    assert right["wood"] == 1
    wrong = crafter_figures.measure(KnowingWorld(played, names, stubborn=True), played, config)
    copied = wrong["after_1"]["right_tiles_of_a_copy"]
    assert wrong["after_1"]["right_tiles"] == pytest.approx(copied)
    assert wrong["walks"]["all"] < 0.7
    assert wrong["wood"] == 0


def test_a_walk_shifts_the_map() -> None:
    draw = torch.Generator().manual_seed(0)
    whole = torch.randint(256, (1, 200, 200, 3), generator=draw, dtype=torch.uint8)
    at = whole[:, 64:136, 64:136]
    for way in WAYS.values():
        for n in range(5):
            y, x = 64 + way[1] * n * TILE, 64 + way[0] * n * TILE
            moved = whole[:, y : y + 72, x : x + 72]
            assert crafter_figures.shift_of(at, moved, way).tolist() == [n]


def test_the_score_is_a_geometric_mean_of_success_rates() -> None:
    never = dict.fromkeys(crafter_figures.ACHIEVEMENTS, 0.0)
    assert crafter_figures.scores([never]) == {"crafter score": 0.0, "achievements": 0.0}
    every = dict.fromkeys(crafter_figures.ACHIEVEMENTS, 3.0)
    assert crafter_figures.scores([every])["crafter score"] == pytest.approx(100)
    half = crafter_figures.scores([never, {**never, "collect_wood": 2.0, "eat_cow": 1.0}])
    assert half == pytest.approx({"crafter score": 51 ** (2 / 22) - 1, "achievements": 1.0})


def test_the_page_records_every_achievement(page: WorldTrainConfig) -> None:
    assert set(crafter_figures.ACHIEVEMENTS) <= set(page.record.events)
    assert page.evaluate.agents.endswith("crafter_figures:scores")
