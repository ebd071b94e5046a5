"""Where everything is: the picture as large as the window allows, the rest beside or below it."""

from __future__ import annotations

from dataclasses import dataclass

import pygame

from magi_world.demos.window.picture import fitted

COLUMN, COLUMN_MOST = 340, 480
HEADER, FOOTER = 48, 168
LEAST_FOR_COMMANDS = 560  # height of a window in which the commands fit below the picture


@dataclass(frozen=True)
class Layout:
    """The parts of the window.

    picture: where the world is.    column: beside it; None where all is above and below it.
    header: name, who steers.    commands: what can be said; may be without area.
    timeline, transport, line: the slider, its buttons, and where text is typed.
    """

    picture: pygame.Rect
    column: pygame.Rect | None
    header: pygame.Rect
    status: pygame.Rect
    commands: pygame.Rect
    timeline: pygame.Rect
    transport: pygame.Rect
    line: pygame.Rect


def arrange(screen: pygame.Rect, frame_size: tuple[int, int]) -> Layout:
    """For a world of (height, width), whichever way shows it larger."""
    height, width = frame_size
    shape = width / height
    room = min(COLUMN_MOST, max(COLUMN, round(screen.width - screen.height * shape)))
    beside = pygame.Rect(0, 0, max(1, screen.width - room), screen.height)
    footer = FOOTER if screen.height >= LEAST_FOR_COMMANDS else FOOTER - 40
    below = pygame.Rect(0, HEADER, screen.width, max(1, screen.height - HEADER - footer))
    size = width, height
    if fitted(size, beside).width >= fitted(size, below).width:
        return _beside(screen, beside)
    return _below(screen, below)


def _beside(screen: pygame.Rect, picture: pygame.Rect) -> Layout:
    column = pygame.Rect(picture.right, 0, screen.width - picture.width, screen.height)
    pad = 24
    left, width = column.left + pad, column.width - 2 * pad
    line = pygame.Rect(left, column.bottom - pad - 46, width, 46)
    transport = pygame.Rect(left, line.top - 18 - 36, width, 36)
    timeline = pygame.Rect(left, transport.top - 26, width, 18)
    header = pygame.Rect(left, 20, width, 84)
    status = pygame.Rect(left, header.bottom + 14, width, 160)
    commands = pygame.Rect(left, status.bottom + 8, width, 0)
    commands.height = max(0, timeline.top - 16 - commands.top)
    return Layout(picture, column, header, status, commands, timeline, transport, line)


def _below(screen: pygame.Rect, picture: pygame.Rect) -> Layout:
    pad = 16
    left, width = pad, max(1, screen.width - 2 * pad)
    header = pygame.Rect(left, 0, width, HEADER)
    line = pygame.Rect(left, screen.bottom - 12 - 42, width, 42)
    transport = pygame.Rect(left, line.top - 10 - 36, min(width, 330), 36)
    status = pygame.Rect(transport.right + 18, transport.top, 0, 36)
    status.width = max(0, left + width - status.left)
    timeline = pygame.Rect(left, transport.top - 22, width, 18)
    commands = pygame.Rect(left, picture.bottom + 4, width, 0)
    commands.height = max(0, timeline.top - 4 - commands.top)
    if commands.height < 30:
        commands.height = 0
    return Layout(picture, None, header, status, commands, timeline, transport, line)
