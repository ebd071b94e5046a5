"""The window of render_mode "human", and gymnasium.utils.play."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pygame
import pytest

from magi_world.envs import MagiWorldEnv
from magi_world.envs.viewer import Viewer, tiled
from magi_world.envs.wrappers import DiscreteCommands
from magi_world.world.world import World
from tests.tiny import tiny_parts


@pytest.fixture(autouse=True)
def _no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def test_frames_are_shown_at_the_worlds_pace() -> None:
    viewer = Viewer((32, 48), fps=100)
    frames = np.zeros((20, 32, 48, 3), np.uint8)
    frames[-1, 5, 7] = 255
    viewer.show(frames[:1], "warm up")
    begin = time.perf_counter()
    viewer.show(frames, "a title")
    assert 0.15 < time.perf_counter() - begin < 1.0
    shown = pygame.surfarray.array3d(viewer._surface)
    assert shown.shape == (48 * 8, 32 * 8, 3)
    assert (shown[7 * 8 : 8 * 8, 5 * 8 : 6 * 8] == 255).all()
    assert shown.sum() == 64 * 3 * 255
    assert viewer._window.title == "a title"
    viewer.close()


@pytest.mark.parametrize(
    "event",
    [pygame.event.Event(pygame.QUIT), pygame.event.Event(pygame.KEYDOWN, key=pygame.K_ESCAPE)],
)
def test_closing_the_window_ends_the_show_not_the_world(event: Any) -> None:
    parts = tiny_parts()
    world = World(replace(parts, spec=replace(parts.spec, fps=10.0)))
    env = MagiWorldEnv(world, render_mode="human")
    env.reset(seed=0)
    pygame.event.post(event)
    env.step("turn left")
    viewer: Any = env._viewer
    assert viewer.closed
    begin = time.perf_counter()
    _, _, _, _, info = env.step("turn left")
    assert info["chunk"] == 2
    assert time.perf_counter() - begin < 8 / 10  # nothing is waited for
    env.close()


def test_without_a_display_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "no-such-driver")
    pygame.display.quit()
    env = MagiWorldEnv(World(tiny_parts()), render_mode="human")
    with pytest.raises(RuntimeError, match=r"needs a display .*use 'rgb_array'"):
        env.reset(seed=0)


def test_worlds_are_tiled() -> None:
    frames = np.arange(5, dtype=np.uint8)[:, None, None, None, None] * np.ones(
        (1, 3, 2, 4, 3), np.uint8
    )
    picture = tiled(frames + 1)
    assert picture.shape == (3, 4, 12, 3)
    np.testing.assert_array_equal(picture[0, ::2, ::4, 0], [[1, 2, 3], [4, 5, 0]])
    np.testing.assert_array_equal(tiled(frames[:1]), frames[0])


@pytest.mark.filterwarnings("ignore:.*matplotlib")
def test_gymnasiums_play_plays_it() -> None:
    from gymnasium.utils.play import play

    parts = tiny_parts()
    world = World(replace(parts, spec=replace(parts.spec, fps=800.0)))
    env = DiscreteCommands(MagiWorldEnv(world, render_mode="rgb_array"))
    said: list[str] = []

    def script(before: Any, after: Any, action: int, *rest: Any) -> None:
        said.append(rest[-1]["prompt"])
        keys = {1: (pygame.KEYDOWN, pygame.K_LEFT), 3: (pygame.KEYUP, pygame.K_LEFT)}
        if (press := keys.get(len(said))) is not None:
            pygame.event.post(pygame.event.Event(press[0], key=press[1]))
        if len(said) == 5:
            pygame.event.post(pygame.event.Event(pygame.QUIT))

    play(env, callback=script, seed=0, zoom=4)
    assert said == ["stand still", "turn left", "turn left", "stand still", "stand still"]


def test_events_of_another_window_stay_where_they_are() -> None:
    pygame.display.set_mode((64, 64))
    try:
        pygame.event.clear()
        viewer = Viewer((32, 48), fps=100)
        other = pygame.Window("another", (64, 64))
        pygame.event.post(pygame.Event(pygame.KEYDOWN, key=pygame.K_a, window=viewer._window))
        pygame.event.post(pygame.Event(pygame.KEYDOWN, key=pygame.K_ESCAPE, window=other))
        pygame.event.post(pygame.Event(pygame.MOUSEBUTTONDOWN, pos=(1, 1), button=1, window=other))
        viewer.show(np.zeros((2, 32, 48, 3), np.uint8), "mine")
        assert not viewer.closed
        left = [event.type for event in pygame.event.get()]
        assert left.count(pygame.KEYDOWN) == 2
        assert left.count(pygame.MOUSEBUTTONDOWN) == 1
        pygame.event.post(pygame.Event(pygame.KEYDOWN, key=pygame.K_ESCAPE, window=viewer._window))
        viewer.show(np.zeros((2, 32, 48, 3), np.uint8), "mine")
        assert viewer.closed
        other.destroy()
    finally:
        pygame.display.quit()
