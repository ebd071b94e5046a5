"""A window with SDL's dummy driver, and somebody who presses its keys."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pygame

from magi_world.agents import RandomAgent
from magi_world.demos.play import PlayConfig, make_state
from magi_world.demos.window import jobs
from magi_world.demos.window.app import App, AppConfig
from magi_world.demos.window.worker import Engine
from magi_world.world.world import World
from tests.tiny import tiny_parts


def load(name: str) -> World:
    if name == "broken":
        raise ValueError("the weights of broken hold NaN")
    return quick_world()


def quick_world() -> World:
    """The tiny world at 80 frames a second, so that no test waits for a picture."""
    parts = tiny_parts()
    return World(replace(parts, spec=replace(parts.spec, fps=80)))


class Driver:
    """Presses keys in a window that nobody sees."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        config = PlayConfig(folder=folder, session=folder / "s.jsonl")
        self.state = make_state(
            Engine(load), {"random": RandomAgent()}, ["tiny", "other", "broken"], config
        )
        self.player = self.state.player
        self.app = App(self.state, AppConfig(size=(1280, 800)))

    def opened(self) -> Driver:
        self.player.open(jobs.Open("tiny"))
        self.until(lambda: self.player.moment is not None and self.player.moment.index > 0)
        return self

    def frame(self) -> None:
        """One turn of the loop."""
        for event in pygame.event.get():
            self.app.handle(event)
        now = time.perf_counter()
        self.player.tick(now)
        self.app.draw(now)

    def until(self, condition: Callable[[], object], limit: float = 90.0) -> None:
        end = time.monotonic() + limit
        while not condition():
            texts = [n.text for n in self.player.notices.shown]
            assert time.monotonic() < end, f"it never happened; {texts}"
            self.frame()
            time.sleep(0.002)

    def key(self, key: int, text: str = "", mod: int = 0, hold: bool = False) -> None:
        pygame.event.post(pygame.Event(pygame.KEYDOWN, key=key, mod=mod, unicode=text))
        if text:
            pygame.event.post(pygame.Event(pygame.TEXTINPUT, text=text))
        if not hold:
            pygame.event.post(pygame.Event(pygame.KEYUP, key=key, mod=mod))
        self.frame()

    def type(self, text: str) -> None:
        for letter in text:
            self.key(ord(letter), letter)

    def click(self, name: str) -> None:
        """Where the window says that this lies."""
        place = self.place(name)
        self.press(place)
        self.let_go(place)

    def place(self, name: str) -> tuple[int, int]:
        self.pixels()
        return self.app.spots.named(name).rect.center

    def press(self, place: tuple[int, int]) -> None:
        pygame.event.post(pygame.Event(pygame.MOUSEBUTTONDOWN, pos=place, button=1))
        self.frame()

    def let_go(self, place: tuple[int, int]) -> None:
        pygame.event.post(pygame.Event(pygame.MOUSEBUTTONUP, pos=place, button=1))
        self.frame()

    def move(self, place: tuple[int, int]) -> None:
        pygame.event.post(pygame.Event(pygame.MOUSEMOTION, pos=place, rel=(0, 0), buttons=(0,) * 3))
        self.frame()

    @property
    def screen(self) -> pygame.Rect:
        return self.app._surface.get_rect()

    @property
    def errors(self) -> list[str]:
        return [n.text for n in self.player.notices.shown if n.level == "error"]

    def pixels(self) -> np.ndarray:
        self.app._drawn = None
        self.frame()
        return pygame.surfarray.array3d(self.app._surface).swapaxes(0, 1)
