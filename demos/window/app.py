"""The window itself: pygame events in, pictures out. All pygame calls are made in this thread."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pygame

from magi_world.demos.window.brush import COLUMN, Spots
from magi_world.demos.window.keyboard import Keyboard
from magi_world.demos.window.state import AppState
from magi_world.demos.window.view import View

LEAST_HEIGHT = 640


@dataclass(frozen=True)
class AppConfig:
    """size: (width, height) of the window at first.
    rate: how often a second keys are read and the picture is checked.
    idle: seconds after which the window is drawn though nothing seems to have changed.
    scale: once the first world is open, make the window so large that its picture is enlarged
        by this whole factor; None keeps ``size``.
    max_seconds: close after so long; None stays open.
    """

    size: tuple[int, int] = (1280, 800)
    rate: int = 60
    idle: float = 0.1
    scale: int | None = None
    max_seconds: float | None = None
    title: str = "magi-world"


class App:
    """Runs a state in a window until it is closed."""

    def __init__(self, state: AppState, config: AppConfig | None = None) -> None:
        """Opens the window.

        Raises:
            pygame.error: there is no display.
        """
        self.state, self.config = state, config or AppConfig()
        self.keyboard = Keyboard(state)
        pygame.display.init()
        pygame.font.init()
        pygame.display.set_caption(self.config.title)
        self._surface = pygame.display.set_mode(self.config.size, pygame.RESIZABLE)
        pygame.key.set_repeat(320, 45)
        pygame.key.start_text_input()
        self._view = View()
        self._held: set[int] = set()
        self._ignore_text = False
        self._drawn: object = None
        self._drawn_at = 0.0
        self._full, self._scale, self._titled = False, self.config.scale, ""
        self._windowed = self.config.size

    def run(self) -> None:
        clock, begun = pygame.time.Clock(), time.perf_counter()
        while not self.state.quit:
            for event in pygame.event.get():
                self.handle(event)
            now = time.perf_counter()
            self.state.player.tick(now)
            self.draw(now)
            limit = self.config.max_seconds
            if limit is not None and now - begun >= limit:
                break
            clock.tick(self.config.rate)

    def close(self) -> None:
        self.state.player.close()
        self.state.previews.close()
        pygame.display.quit()

    def handle(self, event: pygame.event.Event) -> None:
        self._drawn = None
        keyboard, line = self.keyboard, self.state.line
        if event.type == pygame.QUIT:
            self.state.quit = True
        elif event.type == pygame.KEYDOWN:
            again = event.key in self._held
            self._held.add(event.key)
            ctrl = bool(event.mod & (pygame.KMOD_CTRL | pygame.KMOD_META))
            shift = bool(event.mod & pygame.KMOD_SHIFT)
            if line.open and ctrl and event.key == pygame.K_v:
                line.insert(_clipboard())
                self._ignore_text = True
            else:
                name = pygame.key.name(event.key)
                self._ignore_text = keyboard.press(name, ctrl, shift, again)
        elif event.type == pygame.KEYUP:
            self._held.discard(event.key)
            keyboard.release(pygame.key.name(event.key))
        elif event.type == pygame.TEXTINPUT:
            # The key that opened the line must not also be written into it.
            if line.open and not self._ignore_text:
                line.insert(event.text)
        elif event.type == pygame.WINDOWFOCUSLOST:
            self._held.clear()
            keyboard.release_all()
        elif event.type == pygame.DROPFILE:
            self.state.drop(Path(event.file))
        elif event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
            self.click(event.pos)
        elif event.type == pygame.MOUSEBUTTONUP and event.button == 1:
            self._view.spots.release()
        elif event.type == pygame.MOUSEMOTION:
            self._view.spots.move(event.pos)
        elif event.type == pygame.WINDOWLEAVE:
            self._view.spots.mouse = None
        elif event.type == pygame.MOUSEWHEEL and not self.state.overlay:
            # Up, or away from the person, is into the past.
            self.state.player.rewind(event.y)

    @property
    def spots(self) -> Spots:
        return self._view.spots

    def click(self, place: tuple[int, int]) -> None:
        """The left button went down: whatever lies there; beside the open line, it closes it."""
        line, spots = self.state.line, self._view.spots
        spots.mouse = place
        spot = spots.under
        if line.open and not (spot and spot.name.startswith(("line", "completion"))):
            line.close()
        spots.press(place)

    def draw(self, now: float) -> None:
        player, state = self.state.player, self.state
        if state.fullscreen != self._full:
            self._full = state.fullscreen
            self._toggle_full_screen()
        if player.opened is not None and player.opened.source != self._titled:
            self._titled = player.opened.source
            pygame.display.set_caption(f"{player.opened.spec.name} - {self.config.title}")
        if self._scale is not None and player.opened is not None:
            size = window_size(player.opened.spec.frame_size, self._scale)
            self._surface = pygame.display.set_mode(size, pygame.RESIZABLE)
            self._scale = None
        futures = player.futures
        seen = (
            player.moment,
            player.playback.frame_number,
            player.runner.progress,
            player.runner.job,
            player.notices.shown,
            len(player.flashes.current(now)) and now,
            None if futures is None else (id(futures), futures.seconds),
        )
        if seen == self._drawn and now - self._drawn_at < self.config.idle:
            return
        self._drawn, self._drawn_at = seen, now
        # Resizing gives the window another surface.
        self._surface = surface = pygame.display.get_surface() or self._surface
        self._view.draw(surface, state)
        if (path := state.window_shot) is not None:
            state.window_shot = None
            self._shoot(surface, path)
        pygame.display.flip()

    def _shoot(self, surface: pygame.Surface, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            pygame.image.save(surface, path)
        except (OSError, pygame.error) as error:
            self.state.player.notices.error(f"no picture: {error}")
        else:
            self.state.player.notices.info(f"window saved: {path}")

    def _toggle_full_screen(self) -> None:
        """As a window without a frame, over the whole screen; the window comes back as it was."""
        if self._full:
            self._windowed = pygame.display.get_window_size()
            pygame.display.set_mode((0, 0), pygame.FULLSCREEN)
        else:
            pygame.display.set_mode(self._windowed, pygame.RESIZABLE)


def window_size(frame_size: tuple[int, int], scale: int) -> tuple[int, int]:
    """(width, height) of a window in which (height, width) is enlarged ``scale`` times."""
    height, width = frame_size
    # Beside a low picture the controls would not fit.
    return width * scale + COLUMN, max(height * scale, LEAST_HEIGHT)


def _clipboard() -> str:
    try:
        return pygame.scrap.get_text()
    except pygame.error:
        return ""
