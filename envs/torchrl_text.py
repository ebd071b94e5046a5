"""Texts as TorchRL's actions. Imported by itself where TorchRL is loaded.

TorchRL knows a space of texts, but draws the words 'a string' from it.
"""

from __future__ import annotations

from typing import Any

from tensordict import NonTensorData
from torchrl.data import Choice
from torchrl.envs.libs.gym import register_gym_spec_conversion

from magi_world.envs.spaces import CommandSpace


class CommandSpec(Choice):
    """The world's commands: `rand` draws one of them; any other text is an action too."""

    def to_numpy(self, val: Any, safe: bool | None = None) -> Any:
        """The text itself."""
        return val.data if isinstance(val, NonTensorData) else val

    def is_in(self, val: Any) -> bool:
        """Whether it is a text."""
        return isinstance(self.to_numpy(val), str)


@register_gym_spec_conversion(CommandSpace)
def _convert(spec: CommandSpace, device: Any = None, **_: Any) -> CommandSpec:
    return CommandSpec([NonTensorData(command, device=device) for command in spec.commands])
