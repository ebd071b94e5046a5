"""What a world tells about itself: its picture, its pace, the commands that it was trained on."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from magi_world.config import require

# What can be said to a world as an action or in a dataset.
PRINTABLE = "".join(chr(code) for code in range(32, 127))
MAX_CHARACTERS = 1024
_BLANKS = re.compile(r"\{(?:scene|command)\}")


@dataclass(frozen=True)
class Command:
    """One thing that can be said to the world.

    name: the canonical phrase, e.g. "turn left".
    phrases: other ways to say it that the world was trained on.
    held_out: further ways, kept out of training to measure understanding.
    keys: names of keyboard keys, e.g. ("left", "a"); a combination is joined with "+".
    opposite: the command that undoes it, which "back" means; None has none.
    chunks: how long it takes by itself, in a sentence that goes on with something else.
    """

    name: str
    phrases: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    opposite: str | None = None
    chunks: int = 1

    def __post_init__(self) -> None:
        require(bool(self.name.strip()), "Command.name is empty; it must be a phrase")
        require(
            isinstance(self.chunks, int) and self.chunks >= 1,
            f"Command.chunks of {self.name!r} is {self.chunks!r}; it must be a whole number from 1",
        )


@dataclass(frozen=True)
class WorldSpec:
    """Facts about a world that its users need; `quality` and `provenance` are free-form records.

    frame_size: (height, width) in pixels.    fps: video frames a second.
    prompt_template: how scene and command become the caption of a chunk.
    fingerprint: changes whenever the weights do; sessions and snapshots carry it.
    threshold: confidence, 0 .. 1, below which a text is not obeyed; None is measured on the
        phrasings (`magi_world.language`).
    things: what the world knows, for the answer to a text that it does not; () lists the commands.
    best_start: number of the start video that shows the world best; None leaves it to be found.
    """

    name: str
    frame_size: tuple[int, int]
    frames_per_chunk: int
    fps: float
    commands: tuple[Command, ...] = ()
    default_command: str | None = None
    scene: str = ""
    prompt_template: str = "{scene} {command}"
    description: str = ""
    licence: str = ""
    fingerprint: str = ""
    num_starts: int = 0
    threshold: float | None = None
    things: tuple[str, ...] = ()
    best_start: int | None = None
    quality: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = self.command_names
        require(len(set(names)) == len(names), f"WorldSpec.commands has a name twice: {names}")
        require(
            self.default_command is None or self.default_command in names,
            f"WorldSpec.default_command is {self.default_command!r}; it must be one of {names}",
        )
        for command in self.commands:
            require(
                command.opposite is None or command.opposite in names,
                f"Command.opposite of {command.name!r} is {command.opposite!r}; it must be one of "
                f"{names}",
            )
        require(
            self.threshold is None or 0 < self.threshold <= 1,
            f"WorldSpec.threshold is {self.threshold!r}; it must be above 0 and at most 1, or None",
        )
        for part in ("{scene}", "{command}"):
            require(
                self.prompt_template.count(part) <= 1,
                f"WorldSpec.prompt_template is {self.prompt_template!r}; {part} may occur once",
            )
        require("{command}" in self.prompt_template, "WorldSpec.prompt_template needs {command}")

    @property
    def command_names(self) -> tuple[str, ...]:
        """The canonical phrases, in order."""
        return tuple(c.name for c in self.commands)

    @property
    def chunk_seconds(self) -> float:
        """How long one chunk plays."""
        return self.frames_per_chunk / self.fps

    def caption(self, scene: str, command: str) -> str:
        """The text that conditions a chunk."""
        # In one go: a scene may contain the words {command}, and says just these then.
        said = {"{scene}": scene, "{command}": command}
        text = _BLANKS.sub(lambda blank: said[blank.group()], self.prompt_template)
        return " ".join(text.split())
