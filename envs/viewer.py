"""A small window that plays chunks at the world's pace.

Shapes: T video frames, H, W pixels.
"""

from __future__ import annotations

from time import perf_counter, sleep
from typing import Any

import numpy as np

from magi_world.io.media import enlarge

MIN_LINES = 256


class Viewer:
    """Shows chunks frame by frame. Closing its window (or Escape) ends the show, not the world."""

    def __init__(self, frame_size: tuple[int, int], fps: float) -> None:
        """Opens the window.

        Raises:
            RuntimeError: there is no display.
        """
        import pygame

        self._pygame = pygame
        self.fps = fps
        self.factor = max(1, -(-MIN_LINES // frame_size[0]))
        self.closed = False
        height, width = (n * self.factor for n in frame_size)
        try:
            pygame.display.init()
            # A window of its own, because the program may have another one.
            self._window: Any = pygame.Window("magi-world", (width, height))
            self._surface = self._window.get_surface()
        except pygame.error as error:
            raise RuntimeError(
                f"render_mode 'human' needs a display ({error}); use 'rgb_array', or set "
                "SDL_VIDEODRIVER=dummy to run without one"
            ) from error
        self._due = 0.0

    def show(self, frames: np.ndarray, title: str) -> None:
        """Play frames (T, H, W, 3) uint8, each for 1 / fps seconds; returns at once if closed."""
        for frame in frames:
            if self.closed or self._asked_to_close():
                return
            self._window.title = title
            picture = enlarge(frame, self.factor).swapaxes(0, 1)
            self._pygame.surfarray.blit_array(self._surface, picture)
            self._window.flip()
            self._due = max(self._due + 1 / self.fps, perf_counter())
            sleep(max(0.0, self._due - perf_counter()))

    def close(self) -> None:
        """Close the window. A second call does nothing."""
        if not self.closed:
            self.closed = True
            self._window.destroy()

    def _asked_to_close(self) -> bool:
        """Looks at this window's events; those of other windows stay where they are."""
        pygame = self._pygame
        shared = pygame.display.get_surface() is not None
        kinds = (pygame.KEYDOWN, pygame.QUIT, pygame.WINDOWCLOSE)
        for event in pygame.event.get(kinds if shared else None):
            mine = getattr(event, "window", None) in (None, self._window)
            escape = event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE
            if mine and (escape or event.type in (pygame.QUIT, pygame.WINDOWCLOSE)):
                self.close()
            if shared and (not mine or event.type != pygame.WINDOWCLOSE):
                pygame.event.post(event)
        return self.closed


def tiled(frames: np.ndarray) -> np.ndarray:
    """(B, T, H, W, 3) -> (T, rows * H, columns * W, 3): all worlds in one picture."""
    count, length, height, width, _ = frames.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    grid = np.zeros((rows * columns, *frames.shape[1:]), np.uint8)
    grid[:count] = frames
    grid = grid.reshape(rows, columns, length, height, width, 3)
    return grid.transpose(2, 0, 3, 1, 4, 5).reshape(length, rows * height, columns * width, 3)
