"""Three things to try, for somebody who sees the window for the first time. No drawing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from magi_world.demos.window.controllers import RANDOM
from magi_world.demos.window.player import Player
from magi_world.world.spec import Command

SECONDS = 90.0  # after which they go away by themselves


@dataclass(frozen=True)
class Tip:
    """One thing to try.

    name: for telling them apart.    keys: to press.    words: what that does.
    does: the same by a click.
    """

    name: str
    keys: tuple[str, ...]
    words: str
    does: Callable[[], object]


class Tips:
    """What to try, until all of it was tried, it was sent away, or time is up."""

    def __init__(self) -> None:
        """Nothing was tried."""
        self.closed = False
        self.tried: set[str] = set()
        self._since: float | None = None

    def close(self) -> None:
        """They were read."""
        self.closed = True

    def did(self, name: str) -> None:
        """This was tried."""
        self.tried.add(name)

    def shown(self, player: Player, say: Callable[[str], object]) -> list[Tip]:
        """The three, as this world has them; none when they are not wanted any more."""
        if player.opened is None or player.moment is None or self.closed:
            return []
        self._since = player.now if self._since is None else self._since
        tips = [_steer(player), _type(player, say), _company(player)]
        known = [tip for tip in tips if tip is not None]
        if player.now - self._since > SECONDS or all(tip.name in self.tried for tip in known):
            self.closed = True
        return known


def _steer(player: Player) -> Tip | None:
    keymap = player.steering.keymap
    keyed = [(c.name, keymap.keys_of(c.name)) for c in _commands(player)]
    for arrow in ("up", "left", "right", "down"):
        for name, keys in keyed:
            if arrow in keys:
                return Tip("steer", (arrow,), f"hold it to {name}", partial(player.tap, name))
    return None


def _type(player: Player, say: Callable[[str], object]) -> Tip:
    """Something that no arrow does comes first: it shows what words are for."""
    keymap, commands = player.steering.keymap, _commands(player)
    others = [c.name for c in commands if c.name != player.steering.default]
    goals = [name for name in others if keymap.lasting(name)]
    text = next(iter(goals or others), "what happens next")
    return Tip("type", ("return",), f'and type "{text}"', lambda: say(text))


def _company(player: Player) -> Tip:
    following = player.controllers.following
    if following not in (player.controllers.name, RANDOM):
        return Tip("company", ("c",), f"let {following} play for you", player.hand_over)
    return Tip("fork", ("f",), "see four futures side by side", player.what_if)


def _commands(player: Player) -> tuple[Command, ...]:
    return () if player.opened is None else player.opened.spec.commands
