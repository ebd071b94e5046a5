"""Keyboard keys of a world's commands."""

from __future__ import annotations

from magi_world.world.spec import WorldSpec


def keys_to_action(spec: WorldSpec) -> dict[tuple[int, ...], str]:
    """Key codes of `pygame`, sorted, to the command that they give.

    Raises:
        ValueError: a command names a key that pygame does not know.
    """
    return {
        tuple(sorted(key_code(name) for name in combination.split("+"))): command.name
        for command in spec.commands
        for combination in command.keys
    }


def key_code(name: str) -> int:
    """The code of a key, e.g. "left", "a" or "space".

    Raises:
        ValueError: there is no such key.
    """
    # Only numbers are taken from pygame: pygame.key.key_code would need an open window.
    import pygame.constants

    for spelled in (name, name.upper()):
        code = getattr(pygame.constants, f"K_{spelled}", None)
        if isinstance(code, int):
            return code
    raise ValueError(f"key {name!r} is not known; it must be one of pygame's, e.g. 'left' or 'a'")
