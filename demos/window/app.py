"""The window itself: pygame events in, pictures out. All pygame calls are made in this thread."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pygame

from magi_world.demos.window.bars import BOTTOM, TOP
from magi_world.demos.window.desk import SLOTS, Desk
from magi_world.demos.window.fork_view import panes
from magi_world.demos.window.keyboard import Keyboard
from magi_world.demos.window.panels import HUD_WIDTH, slot_cells, world_rows
from magi_world.demos.window.view import MARGIN, View, world_area


@dataclass(frozen=True)
class AppConfig:
    """size: (width, height) of the window at first.
    rate: how often a second keys are read and the picture is checked.
    idle: seconds after which the window is drawn though nothing seems to have changed.
    scale: once the first world is open, make the window so large that its picture is enlarged
        by this whole factor; None keeps ``size``.
    max_seconds: close after so long; None stays open.
    """

    size: tuple[int, int] = (960, 720)
    rate: int = 60
    idle: float = 0.1
    scale: int | None = None
    max_seconds: float | None = None
    title: str = "magi-world"


class App:
    """Runs a desk in a window until it is closed."""

    def __init__(self, desk: Desk, config: AppConfig | None = None) -> None:
        """Opens the window.

        Raises:
            pygame.error: there is no display.
        """
        self.desk, self.config = desk, config or AppConfig()
        self.keyboard = Keyboard(desk)
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

    def run(self) -> None:
        """Until the window is closed or time is up."""
        clock, begun = pygame.time.Clock(), time.perf_counter()
        while not self.desk.quit:
            for event in pygame.event.get():
                self.handle(event)
            now = time.perf_counter()
            self.desk.player.tick(now)
            self.draw(now)
            limit = self.config.max_seconds
            if limit is not None and now - begun >= limit:
                break
            clock.tick(self.config.rate)

    def close(self) -> None:
        """Stop the worker, end the files, close the window."""
        self.desk.player.close()
        pygame.display.quit()

    def handle(self, event: pygame.event.Event) -> None:
        """One event of the window."""
        self._drawn = None
        keyboard, line = self.keyboard, self.desk.line
        if event.type == pygame.QUIT:
            self.desk.quit = True
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
            self.desk.drop(Path(event.file))
        elif event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
            self.click(event.pos)

    def click(self, place: tuple[int, int]) -> None:
        """The left button: pick what is under it, or begin to type."""
        desk, screen = self.desk, self._surface.get_rect()
        if desk.overlay == "worlds":
            hit = _hit(world_rows(screen, len(desk.worlds)), place)
            if hit is not None:
                desk.picked = hit
                desk.open_picked()
        elif desk.overlay == "slots":
            hit = _hit(slot_cells(screen), place)
            if hit is not None:
                desk.load(SLOTS[hit])
        elif desk.overlay == "help" or place[1] < TOP:
            desk.show("help")
        elif place[1] > world_area(screen, desk).bottom:
            desk.line.start(desk.line.text)
        elif (futures := desk.player.futures) is not None:
            hit = _hit(panes(world_area(screen, desk), futures.config.count), place)
            if hit is not None:
                # The first click points at a future, the second keeps it.
                if hit == futures.selected:
                    desk.player.keep(hit)
                else:
                    futures.select(hit)

    def draw(self, now: float) -> None:
        """Draw, if there is something new to see."""
        player, desk = self.desk.player, self.desk
        if desk.fullscreen != self._full:
            self._full = desk.fullscreen
            pygame.display.toggle_fullscreen()
        if player.opened is not None and player.opened.source != self._titled:
            self._titled = player.opened.source
            pygame.display.set_caption(f"{player.opened.spec.name} - {self.config.title}")
        if self._scale is not None and player.opened is not None:
            size = window_size(player.opened.spec.frame_size, self._scale, desk.hud)
            self._surface = pygame.display.set_mode(size, pygame.RESIZABLE)
            self._scale = None
        futures = player.futures
        seen = (
            player.moment,
            player.playback.frame_number,
            player.runner.progress,
            player.runner.job,
            player.notices.shown,
            None if futures is None else (id(futures), futures.seconds),
        )
        if seen == self._drawn and now - self._drawn_at < self.config.idle:
            return
        self._drawn, self._drawn_at = seen, now
        # Resizing gives the window another surface.
        self._surface = surface = pygame.display.get_surface() or self._surface
        self._view.draw(surface, desk)
        if (path := desk.window_shot) is not None:
            desk.window_shot = None
            self._shoot(surface, path)
        pygame.display.flip()

    def _shoot(self, surface: pygame.Surface, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            pygame.image.save(surface, path)
        except (OSError, pygame.error) as error:
            self.desk.player.notices.error(f"no picture: {error}")
        else:
            self.desk.player.notices.info(f"window saved: {path}")


def window_size(frame_size: tuple[int, int], scale: int, hud: bool) -> tuple[int, int]:
    """(width, height) of a window in which (height, width) is enlarged ``scale`` times."""
    height, width = frame_size
    beside, around = (HUD_WIDTH if hud else 0), 2 * MARGIN
    return width * scale + around + beside, height * scale + around + TOP + BOTTOM


def _hit(places: list[pygame.Rect], place: tuple[int, int]) -> int | None:
    return next((i for i, rect in enumerate(places) if rect.collidepoint(place)), None)


def _clipboard() -> str:
    try:
        return pygame.scrap.get_text()
    except pygame.error:
        return ""
